//! Answers of which only a part arrives: half of the body where there is one, else half of
//! the head, which only the connection itself can see to.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::server::{Answer, lock};

/// By then a half that is written has been sent.
const SENT: Duration = Duration::from_millis(20);

/// What becomes of the other half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The connection is closed.
    Lost,
    /// It never comes, and the connection stays open.
    Awaited,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Whole,
    /// Half of what is written next is sent.
    Half(Rest),
    /// It was.
    Over(Rest),
}

/// What is told to a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<State>>);

impl Wire {
    /// Keeps half of the answer back.
    pub(crate) async fn half(&self, answer: Answer, rest: Rest) -> io::Result<Answer> {
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await?.to_bytes();
        if bytes.is_empty() {
            *lock(&self.0) = State::Half(rest);
            return Ok(Response::from_parts(head, UnsyncBoxBody::default()));
        }
        let half = bytes.slice(..bytes.len() / 2);
        let half = stream::once(async { Ok(Frame::data(half)) });
        // Head and half are sent only while the rest is waited for.
        let other = stream::once(async move {
            tokio::time::sleep(SENT).await;
            match rest {
                Rest::Lost => Err(io::Error::other("the body breaks off here")),
                Rest::Awaited => std::future::pending().await,
            }
        });
        let body = StreamBody::new(half.chain(other));
        let mut answer = Response::from_parts(head, UnsyncBoxBody::new(body));
        answer.headers_mut().insert("content-length", bytes.len().into());
        Ok(answer)
    }

    /// The connection that is told.
    pub(crate) fn over(&self, stream: TcpStream) -> Connection {
        Connection { stream, wire: self.clone() }
    }
}

/// A client's connection.
pub(crate) struct Connection {
    stream: TcpStream,
    wire: Wire,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let state = *lock(&self.wire.0);
        match state {
            State::Whole => Pin::new(&mut self.stream).poll_write(context, bytes),
            State::Half(rest) => {
                let half = &bytes[..bytes.len() / 2];
                let written = Pin::new(&mut self.stream).poll_write(context, half);
                if written.is_ready() {
                    *lock(&self.wire.0) = State::Over(rest);
                }
                written
            }
            State::Over(Rest::Lost) => Poll::Ready(Err(io::Error::other("the head breaks off"))),
            // Only the client's going ends it.
            State::Over(Rest::Awaited) => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
