//! A client's connection that can be broken on purpose, and that knows when the last byte of a reply has left.

use crate::ledger::Call;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How a connection ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// RST, without a byte of reply.
    Reset,
    /// FIN after this many bytes.
    CloseAfter(usize),
}

/// A handle by which the handler of a request speaks to its connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    broken: Option<Break>,
    /// Bytes written since the reply was promised.
    written: usize,
    /// The call whose reply is on its way, and the length of its body.
    promised: Option<(Call, usize)>,
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next reply on this connection is this call's; it is recorded as written when all of it has left, and as not
    /// written if the connection ends before.
    pub(crate) fn promise(&self, call: Call, body_bytes: usize, broken: Option<Break>) {
        let mut state = self.state();
        state.broken = broken;
        state.written = 0;
        state.promised = Some((call, body_bytes));
    }
}

/// The stream that hyper reads and writes.
pub(crate) struct Stream {
    tcp: TcpStream,
    connection: Connection,
}

impl Stream {
    pub(crate) fn new(tcp: TcpStream, connection: Connection) -> Self {
        Self { tcp, connection }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The call's guard records it; it must not wait for the handles that requests still hold.
        let unfinished = self.connection.state().promised.take();
        drop(unfinished);
    }
}

/// Makes the close that follows a reset (RST) in place of an orderly end.
pub(crate) fn reset_on_close(tcp: &TcpStream) {
    // Without it the client sees an orderly end, which is a failure too; nothing better can be done.
    let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (broken, written) = {
            let state = self.connection.state();
            (state.broken, state.written)
        };
        let bytes = match broken {
            None => bytes,
            Some(Break::Reset) => {
                reset_on_close(&self.tcp);
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Some(Break::CloseAfter(most)) if written >= most => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Some(Break::CloseAfter(most)) => &bytes[..bytes.len().min(most - written)],
        };
        let polled = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = polled {
            self.connection.state().written += count;
        }
        polled
    }

    /// hyper flushes when its own buffer is empty: what was promised has then left.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.tcp).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            let mut state = self.connection.state();
            // The head makes `written` larger than the body, so that a head alone is never taken for a whole reply of some
            // length; a reply without a body is whole with its head.
            let whole = state.promised.as_ref().is_some_and(|(_, body)| state.written > *body);
            if whole && let Some((mut call, _)) = state.promised.take() {
                drop(state);
                call.entry.written = true;
            }
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
