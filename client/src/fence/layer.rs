//! The fence in front of a `tower` service: takes the sequencer out of each request, answers refusals.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::{Fence, FenceError};

/// The header of HTTP requests that carries a sequencer's text.
pub const SEQUENCER_HEADER: &str = "hasp-sequencer";

/// What an HTTP request shows: the value of its header `hasp-sequencer`.
///
/// Several such headers are taken together, and so for none: a service behind the fence that looks
/// at another one than the fence did would be fooled.
pub fn sequencer_of_http<B>(request: &http::Request<B>) -> Option<String> {
    let values = request.headers().get_all(SEQUENCER_HEADER).iter();
    let texts: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// Puts a [`Fence`] in front of a service.
///
/// `extract` takes the sequencer's text out of a request ([`sequencer_of_http`] for HTTP); `refuse` makes the
/// response of a refusal. A request counts as going on until the service's response future completes or is
/// dropped: what it leaves running in the background, or a body that it streams later, is not fenced.
#[derive(Clone, Debug)]
pub struct FenceLayer<E, R> {
    fence: Fence,
    extract: E,
    refuse: R,
}

impl<E, R> FenceLayer<E, R> {
    /// A layer of this fence; services behind clones of it share what it remembers.
    pub const fn new(fence: Fence, extract: E, refuse: R) -> Self {
        Self { fence, extract, refuse }
    }
}

impl<S, E: Clone, R: Clone> Layer<S> for FenceLayer<E, R> {
    type Service = Fenced<S, E, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Fenced { inner, layer: self.clone() }
    }
}

/// A service behind a fence.
#[derive(Clone, Debug)]
pub struct Fenced<S, E, R> {
    inner: S,
    layer: FenceLayer<E, R>,
}

impl<S, Q, E, R> Service<Q> for Fenced<S, E, R>
where
    S: Service<Q> + Clone + Send + 'static,
    S::Future: Send,
    Q: Send + 'static,
    E: Fn(&Q) -> Option<String>,
    R: Fn(FenceError) -> S::Response + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Q) -> Self::Future {
        let next = self.inner.clone();
        // The one that was polled is the one that is ready.
        let mut ready = std::mem::replace(&mut self.inner, next);
        let (fence, refuse) = (self.layer.fence.clone(), self.layer.refuse.clone());
        let shown = (self.layer.extract)(&request);
        Box::pin(async move {
            let entered = match shown {
                Some(shown) => fence.enter(shown.as_str()).await,
                None => Err(FenceError::Missing),
            };
            match entered {
                Ok(_pass) => ready.call(request).await,
                Err(error) => Ok(refuse(error)),
            }
        })
    }
}
