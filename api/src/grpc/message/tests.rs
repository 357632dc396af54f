use futures_util::stream;
use http_body_util::StreamBody;
use proptest::prelude::*;

use super::*;

fn wire(compressed: u8, length: usize, message: &[u8]) -> Vec<u8> {
    let mut wire = vec![compressed];
    wire.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    wire.extend_from_slice(message);
    wire
}

async fn received(pieces: Vec<Vec<u8>>, limit: usize) -> Result<Bytes, Status> {
    let frames = pieces
        .into_iter()
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
    receive(StreamBody::new(stream::iter(frames)), limit).await
}

async fn sent<B: Body<Data = Bytes>>(body: B) -> (Vec<u8>, HeaderMap)
where
    B::Error: std::fmt::Debug,
{
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap();
    (collected.to_bytes().to_vec(), trailers)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[tokio::test]
async fn what_is_not_one_whole_message_is_refused() {
    let message = |pieces| received(pieces, 10);
    for (pieces, why) in [
        (vec![], "no message"),
        (vec![vec![]], "no message"),
        (vec![vec![0, 0, 0]], "can't be read"),
        (vec![wire(0, 3, b"ab")], "can't be read"),
        (vec![wire(1, 2, b"ab")], "can't be read"),
        (vec![wire(0, 2, b"abc")], "more than one"),
        (vec![wire(0, 2, b"ab"), wire(0, 2, b"ab")], "more than one"),
    ] {
        let refused = message(pieces.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{pieces:?}");
        assert!(refused.message().contains(why), "{pieces:?}: {refused}");
    }
}

#[tokio::test]
async fn a_length_beyond_the_limit_is_refused_before_the_rest_has_come() {
    let endless = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(wire(
        0, 11, b"",
    ))))]);
    let body = StreamBody::new(futures_util::StreamExt::chain(endless, stream::pending()));
    let refused = receive(body, 10).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert_eq!(
        received(vec![wire(0, 10, &[7; 10])], 10).await.unwrap(),
        vec![7; 10]
    );
}

#[test]
fn compression_is_refused() {
    let mut headers = HeaderMap::new();
    assert!(refuse_compression(&headers).is_ok());
    headers.insert("grpc-encoding", "identity".parse().unwrap());
    assert!(refuse_compression(&headers).is_ok());
    headers.insert("grpc-encoding", "gzip".parse().unwrap());
    let refused = refuse_compression(&headers).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn a_stream_ends_with_its_status() {
    let messages = || {
        vec![
            Ok(Bytes::from_static(b"one")),
            Ok(Bytes::from(vec![2; 9000])),
        ]
    };
    let mut expected = wire(0, 3, b"one");
    expected.extend(wire(0, 9000, &[2; 9000]));
    let (bytes, trailers) = sent(Messages::new(Box::pin(stream::iter(messages())))).await;
    assert_eq!(bytes, expected);
    assert_eq!(trailers["grpc-status"], "0");

    let mut broken = messages();
    broken.push(Err(ApiError::from(Code::Overloaded).into()));
    let (bytes, trailers) = sent(Messages::new(Box::pin(stream::iter(broken)))).await;
    assert_eq!(bytes, expected);
    let status = Status::from_header_map(&trailers).unwrap();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(!status.details().is_empty());
}

proptest! {
    #[test]
    fn what_is_sent_is_received_however_it_is_cut(
        message in proptest::collection::vec(any::<u8>(), 0..6000),
        cuts in proptest::collection::vec(0_usize..6005, 0..4),
    ) {
        block_on(async {
            let (bytes, trailers) = sent(Reply::new(message.clone().into())).await;
            prop_assert_eq!(&trailers["grpc-status"], "0");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).collect();
            prop_assert_eq!(received(pieces, 6000).await.unwrap(), message);
            Ok(())
        })?;
    }
}
