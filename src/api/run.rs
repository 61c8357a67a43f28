//! How does the service live and end? It listens until it is told to end, takes no new requests then,
//! lets those that there are end, keeps what was read, and goes. Nothing depends on its coming to that.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::app;
use super::connections::{self, Limits};
use super::state::Service;

/// The service could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Everybody could use it.
    #[error(
        "{address} can be reached from other machines, and there are no keys: make one with `mneme key`, \
         or listen on 127.0.0.1"
    )]
    NoKeys {
        /// The address.
        address: SocketAddr,
    },
    /// Connections cannot be taken.
    #[error("the service has failed: {0}")]
    Io(#[from] std::io::Error),
}

/// How often it is looked whether requests have ended.
const LOOK: Duration = Duration::from_millis(20);

/// How long connections may take to close once all requests have ended.
const LAST: Duration = Duration::from_secs(5);

/// Serves until `told` is done, then ends. `ready` hears the address, the port chosen where it was 0.
///
/// # Errors
/// When it cannot listen, or may not.
pub async fn serve(
    service: Service,
    ready: impl FnOnce(SocketAddr),
    told: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = service.config().listen;
    if service.keys().is_empty() && !address.ip().is_loopback() {
        return Err(ServeError::NoKeys { address });
    }
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
    ready(listener.local_addr()?);
    let (ended, stop) = tokio::sync::oneshot::channel();
    let config = service.config();
    let limits = Limits {
        connections: config.max_connections,
        head: Duration::from_secs(config.head_seconds),
    };
    let serving = connections::serve(listener, app(service.clone()), limits, stop);
    let ending = async {
        told.await;
        drain(&service).await;
        let _ = ended.send(()); // from now on connections close as they become idle
        sleep(LAST).await; // those that are open then have had their time
    };
    tokio::select! {
        () = serving => {}
        () = ending => {}
    }
    Ok(())
}

/// Lets requests end, as long as they may take; readings are stopped, and go on another time.
async fn drain(service: &Service) {
    service.drain();
    service.stop_readings();
    let deadline = Instant::now() + Duration::from_secs(service.config().drain_seconds);
    while service.server().measures().n_tasks > 0 && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    let left = service.server().measures().n_tasks;
    tracing::info!(left, "ending");
}
