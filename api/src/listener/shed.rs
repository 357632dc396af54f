//! A limit on the calls that a node works on at a time, over all connections.
//!
//! Each call holds its message in memory before anybody knows who sent it. Above the limit a call is
//! refused at once, typed, rather than made to wait: its sender can go to another node.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use crate::{ApiError, Code};

/// A service that takes so many calls at a time and no more. Clones share the limit.
#[derive(Debug, Clone)]
pub struct Shed<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S> Shed<S> {
    /// Takes at most `calls` at a time.
    #[must_use]
    pub fn new(inner: S, calls: usize) -> Self {
        Self {
            inner,
            places: Arc::new(Semaphore::new(calls)),
        }
    }
}

impl<S: NamedService> NamedService for Shed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Shed<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let status = tonic::Status::from(ApiError::from(Code::Overloaded));
            return Box::pin(async move { Ok(status.into_http()) });
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(place);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Answers each call when it is told to.
    #[derive(Clone)]
    struct Slow(Arc<parking_lot::Mutex<Vec<oneshot::Receiver<()>>>>);

    impl Service<http::Request<Body>> for Slow {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            let told = self.0.lock().pop();
            Box::pin(async move {
                if let Some(told) = told {
                    told.await.unwrap();
                }
                Ok(http::Response::new(Body::empty()))
            })
        }
    }

    #[tokio::test]
    async fn a_call_above_the_limit_is_refused_at_once_and_a_place_is_free_again_afterwards() {
        let (tell, told) = oneshot::channel();
        let mut service = Shed::new(Slow(Arc::new(parking_lot::Mutex::new(vec![told]))), 1);
        let request = || http::Request::new(Body::empty());
        let refused = |answer: &http::Response<Body>| {
            let status = tonic::Status::from_header_map(answer.headers());
            status.is_some_and(|status| status.code() == tonic::Code::ResourceExhausted)
        };
        let first = tokio::spawn(service.call(request()));
        assert!(refused(&service.call(request()).await.unwrap()));
        tell.send(()).unwrap();
        assert!(!refused(&first.await.unwrap().unwrap()));
        assert!(!refused(&service.call(request()).await.unwrap()));
    }
}
