//! Bodies that can be sent again.

use core::future::poll_fn;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// A body of which there may be another one like it.
pub trait Replay: Sized {
    /// Another body like this one, if there is any: not where a part of it has been read and is gone.
    fn replay(&self) -> Option<Self>;
}

/// Bodies that are all there: another one is a clone.
macro_rules! clone {
    ($($body:ty),*) => {
        $(impl Replay for $body {
            fn replay(&self) -> Option<Self> {
                Some(self.clone())
            }
        })*
    };
}

clone!((), &'static str, &'static [u8], Bytes, String, Vec<u8>);

impl<D: Clone> Replay for http_body_util::Full<D> {
    fn replay(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D> Replay for http_body_util::Empty<D> {
    fn replay(&self) -> Option<Self> {
        Some(Self::new())
    }
}

/// A body of which the first bytes have been read into memory: one that is short is all there, and can be sent again; of a longer one the rest
/// is still to come, and can be sent once.
///
/// ```
/// use failsoft_tokio::http::{Buffered, Replay};
/// use http_body_util::Full;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), core::convert::Infallible> {
/// let short = Buffered::read(Full::<bytes::Bytes>::from("12 EUR"), 64 * 1024).await?;
/// assert!(short.replay().is_some());
///
/// let long = Buffered::read(Full::<bytes::Bytes>::from("12 EUR"), 3).await?;
/// assert!(long.replay().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Buffered<B> {
    read: Bytes,
    trailers: Option<HeaderMap>,
    // Of which no more than this is to come, if anything.
    rest: Option<B>,
}

impl<B: Body + Unpin> Buffered<B> {
    /// Reads the body until it ends or more than `limit` bytes of it have come. What is kept is at most `limit` bytes and the frame that went
    /// beyond it. With a limit of zero, nothing is read.
    ///
    /// It waits for whoever sends the body, for as long as that takes: a timeout around it is the caller's.
    ///
    /// # Errors
    /// What the body ends with, where it fails meanwhile.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future drops the body, and what was read of it.
    pub async fn read(mut body: B, limit: usize) -> Result<Self, B::Error> {
        let mut read = BytesMut::new();
        // A body that says that it is longer is left as it is.
        let mut rest = usize::try_from(body.size_hint().lower()).map_or(true, |least| least > limit);
        rest |= limit == 0 && !body.is_end_stream();
        let mut trailers = None;
        while !rest {
            let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { break };
            match frame?.into_data() {
                Ok(mut data) => {
                    while data.has_remaining() {
                        let chunk = data.chunk();
                        let length = chunk.len();
                        read.extend_from_slice(chunk);
                        data.advance(length);
                    }
                    rest = read.len() > limit;
                }
                Err(frame) => {
                    trailers = frame.into_trailers().ok();
                    break;
                }
            }
        }
        Ok(Self { read: read.freeze(), trailers, rest: rest.then_some(body) })
    }
}

impl<B> Replay for Buffered<B> {
    fn replay(&self) -> Option<Self> {
        let whole = self.rest.is_none();
        whole.then(|| Self { read: self.read.clone(), trailers: self.trailers.clone(), rest: None })
    }
}

impl<B: Body + Unpin> Body for Buffered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.read)))));
        }
        if let Some(rest) = &mut self.rest {
            let whole = |mut data: B::Data| data.copy_to_bytes(data.remaining());
            return Pin::new(rest)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(whole))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.trailers.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = u64::try_from(self.read.len()).unwrap_or(u64::MAX);
        let Some(rest) = &self.rest else { return SizeHint::with_exact(read) };
        let (rest, mut hint) = (rest.size_hint(), SizeHint::new());
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Frames one by one, each after a poll that is pending, and perhaps an error at last.
    struct Frames {
        frames: VecDeque<Frame<Bytes>>,
        fails: bool,
        ready: bool,
    }

    impl Frames {
        fn new(data: &[&'static str], trailers: bool) -> Self {
            let mut frames: VecDeque<_> =
                data.iter().map(|text| Frame::data(Bytes::from_static(text.as_bytes()))).collect();
            frames.extend(trailers.then(|| Frame::trailers(HeaderMap::with_capacity(1))));
            Self { frames, fails: false, ready: false }
        }
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.ready = !self.ready;
            if self.ready {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.frames.pop_front() {
                None if self.fails => Poll::Ready(Some(Err("cut off"))),
                frame => Poll::Ready(frame.map(Ok)),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.frames.is_empty() && !self.fails
        }
    }

    /// What a body consists of: its bytes, whether it has trailers, and whether it fails.
    async fn all<B: Body + Unpin>(mut body: B) -> (Vec<u8>, bool, bool) {
        let (mut bytes, mut trailers) = (Vec::new(), false);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return (bytes, trailers, true) };
            match frame.into_data() {
                Ok(mut data) => bytes.extend_from_slice(&data.copy_to_bytes(data.remaining())),
                Err(_) => trailers = true,
            }
        }
        assert!(body.is_end_stream());
        (bytes, trailers, false)
    }

    #[tokio::test]
    async fn a_short_body_can_be_sent_again_and_is_the_same_each_time() {
        for trailers in [false, true] {
            let body = Buffered::read(Frames::new(&["ab", "", "cd"], trailers), 4).await.expect("it does not fail");
            assert_eq!(body.size_hint().exact(), Some(4));
            for again in [body.replay(), body.replay(), Some(body)] {
                assert_eq!(all(again.expect("it is all there")).await, (b"abcd".to_vec(), trailers, false));
            }
        }
        let empty = Buffered::read(Frames::new(&[], false), 0).await.expect("it does not fail");
        assert!(empty.is_end_stream() && empty.replay().is_some());
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once_and_whole() {
        for limit in [0, 1, 3, 4] {
            let body = Buffered::read(Frames::new(&["ab", "cd", "e"], true), limit).await.expect("it does not fail");
            assert!(body.replay().is_none(), "{limit}");
            assert_eq!(all(body).await, (b"abcde".to_vec(), true, false), "{limit}");
        }
    }

    #[tokio::test]
    async fn a_body_that_says_that_it_is_long_is_not_read() {
        let body = Buffered::read(http_body_util::Full::<Bytes>::from("abcde"), 4).await.expect("it does not fail");
        assert!((body.read.is_empty(), body.replay().is_none()) == (true, true));
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(all(body).await.0, b"abcde");
    }

    #[tokio::test]
    async fn a_body_that_fails_is_an_error_and_never_a_shorter_body() {
        let failing = || Frames { fails: true, ..Frames::new(&["ab", "cd"], false) };
        assert_eq!(Buffered::read(failing(), 9).await.err(), Some("cut off"));
        let body = Buffered::read(failing(), 1).await.expect("it has not failed yet");
        assert_eq!(all(body).await, (b"abcd".to_vec(), false, true));
    }
}
