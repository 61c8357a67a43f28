//! How are connections taken? So many at once, each closed when it says nothing for too long: a request
//! of which only half was sent holds a connection no longer than that.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::oneshot::Receiver;
use tokio::time::sleep;

/// What connections are held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; who comes then waits in the system's queue.
    pub connections: usize,
    /// How long the head of a request may take, from the end of the one before.
    pub head: Duration,
}

/// How long nothing is taken when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` comes, and then until each has ended what it is at.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, mut stop: Receiver<()>) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let open = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place.expect("because it is never closed"), accept(&listener).await)
        };
        let (place, stream) = tokio::select! {
            accepted = accepted => accepted,
            _ = &mut stop => break,
        };
        // Pieces of an answer are short, and are waited for.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(app.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // Whoever broke it off knows.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionRefused | ConnectionReset
                ) => {} // it was gone before it was taken
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken");
                sleep(PAUSE).await;
            }
        }
    }
}
