//! The calls of `rossby.v1.Mailbox`.

use rossby_proto::v1;

/// A call: its path and its messages.
pub trait Rpc {
    /// The gRPC path, as it stands in the request and in its signature.
    const PATH: &'static str;
    /// What is asked.
    type Request: prost::Message;
    /// What is answered.
    type Response: prost::Message + Default;
}

macro_rules! rpcs {
    ($($(#[$doc:meta])* $name:ident: $request:ident -> $response:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub enum $name {}

            impl Rpc for $name {
                const PATH: &'static str = concat!("/rossby.v1.Mailbox/", stringify!($name));
                type Request = v1::$request;
                type Response = v1::$response;
            }
        )*
    };
}

rpcs! {
    /// Makes a box and asks for a verification code.
    Register: RegisterRequest -> RegisterResponse;
    /// Proves an identifier with the code.
    Authorize: AuthorizeRequest -> AuthorizeResponse;
    /// Finds a key record.
    LookupKey: LookupKeyRequest -> LookupKeyResponse;
    /// Puts envelopes into boxes.
    Send: SendRequest -> SendResponse;
    /// Reads the caller's box.
    Fetch: FetchRequest -> FetchResponse;
    /// Moves the caller's cursor.
    Acknowledge: AcknowledgeRequest -> AcknowledgeResponse;
    /// Blocks a sender, or lifts the block.
    Block: BlockRequest -> BlockResponse;
    /// Takes envelopes from anyone, or from contacts only.
    Accept: AcceptRequest -> AcceptResponse;
    /// Gives the calling device a new KEM key.
    UpdateKey: UpdateKeyRequest -> UpdateKeyResponse;
    /// Adds a device to the box, or removes one.
    ExtendChain: ExtendChainRequest -> ExtendChainResponse;
    /// Gives a linked device its place.
    JoinBox: JoinBoxRequest -> JoinBoxResponse;
    /// Shows a box's key record to who has its recovery key.
    LookupRecovery: LookupRecoveryRequest -> LookupRecoveryResponse;
    /// Gives a device its place by the recovery key.
    Recover: RecoverRequest -> JoinBoxResponse;
    /// Asks for a code for another identifier of the box.
    AddIdentifier: AddIdentifierRequest -> AddIdentifierResponse;
    /// Takes an identifier from the box.
    RemoveIdentifier: RemoveIdentifierRequest -> RemoveIdentifierResponse;
    /// Keeps an identifier of the box that is to go to another.
    KeepIdentifier: KeepIdentifierRequest -> KeepIdentifierResponse;
    /// Tells the identifiers of the box.
    ListIdentifiers: ListIdentifiersRequest -> ListIdentifiersResponse;
    /// Deletes the box.
    DeleteAccount: DeleteAccountRequest -> DeleteAccountResponse;
    /// Replaces what the box shows of itself.
    SetProfile: SetProfileRequest -> SetProfileResponse;
    /// Tells whoever of a box listens now.
    Notify: NotifyRequest -> NotifyResponse;
    /// Brings what comes into the caller's box, message after message.
    Subscribe: SubscribeRequest -> SubscribeResponse;
    /// Tells which node leads which boxes.
    GetMap: GetMapRequest -> GetMapResponse;
    /// Sets how long envelopes may wait in the box.
    SetTtl: SetTtlRequest -> SetTtlResponse;
    /// Reports a box whose mail was unwanted.
    Report: ReportRequest -> ReportResponse;
}
