//! Orders over the admin socket that the command line does not have.

use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use rossby_proto::v1;
use rossby_proto::v1::admin_client::AdminClient;
use tonic::transport::{Channel, Endpoint};

/// The digest of each partition of a group that has any rows, with the index that they are at.
pub type Digests = (u64, Vec<(u32, Vec<u8>)>);

/// The digests of a node's copy.
pub fn digests(socket: PathBuf, group: u32) -> Digests {
    digests_if_held(socket, group).expect("no copy here")
}

/// The digests of a node's copy, if it has one: the map may name a node that is still to make it.
pub fn digests_if_held(socket: PathBuf, group: u32) -> Option<Digests> {
    block_on(async {
        let request = v1::PartitionDigestsRequest { group_id: group };
        let answer = client(socket).await.partition_digests(request).await;
        let answer = match answer {
            Err(status) if status.code() == tonic::Code::InvalidArgument => return None,
            other => other.expect("no digests").into_inner(),
        };
        let pairs = answer
            .digests
            .into_iter()
            .map(|row| (row.partition, row.digest.to_vec()));
        Some((answer.applied_index, pairs.collect()))
    })
}

/// Has a node write a checkpoint; its index.
pub fn checkpoint(socket: PathBuf) -> u64 {
    block_on(async {
        let request = v1::CheckpointRequest { group_id: 1 };
        let answer = client(socket).await.checkpoint(request).await;
        answer.expect("no checkpoint").into_inner().checkpoint_index
    })
}

fn block_on<T: Send>(work: impl Future<Output = T> + Send) -> T {
    // On a thread of its own, so that a test inside a runtime may call it too.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("no runtime").block_on(work)
        });
        thread.join().expect("the order failed")
    })
}

async fn client(socket: PathBuf) -> AdminClient<Channel> {
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let socket = socket.clone();
        async move {
            tokio::net::UnixStream::connect(socket)
                .await
                .map(TokioIo::new)
        }
    });
    let channel = Endpoint::from_static("http://node")
        .connect_with_connector(connector)
        .await;
    AdminClient::new(channel.expect("no node at the admin socket"))
}
