//! What do all requests share? The model and its server, the store, what was said lately, who is
//! changing which context, and whether the service is ending.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock::now;
use super::config::ServeConfig;
use super::error::ApiError;
use super::keys::{Keys, Tenant};
use super::measures::Measures;
use super::reading::Reading;
use super::replies::Replies;
use crate::engine::serve::{Place, RecentSessions, Server, ServerLimits};
use crate::engine::{Contexts, Engine, EngineError};
use crate::memory::MemoryConfig;
use crate::memory::store::{ContextSummary, Store};

/// A service of one model. Clones are the same service.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

/// What a service is made of.
pub struct Parts {
    /// The model.
    pub engine: Engine,
    /// What it is called.
    pub model: String,
    /// How new texts are remembered.
    pub memory: MemoryConfig,
    /// Where contexts lie.
    pub store: Store,
    /// Who may call.
    pub keys: Keys,
    /// How it is set up.
    pub config: ServeConfig,
}

struct Inner {
    parts: Parts,
    server: Server,
    recent: RecentSessions,
    readings: Mutex<HashMap<(Tenant, String), Arc<Reading>>>,
    changing: Mutex<HashSet<(Tenant, String)>>,
    replies: Replies,
    measures: Measures,
    is_draining: AtomicBool,
    started: u64,
}

/// The right to change a context, given back when dropped.
pub struct Changing {
    service: Service,
    of: (Tenant, String),
}

impl Drop for Changing {
    fn drop(&mut self) {
        locked(&self.service.inner.changing).remove(&self.of);
    }
}

impl Service {
    /// Starts the model's server.
    ///
    /// # Errors
    /// When the device has no room for it, or the system gives no thread.
    pub fn start(parts: Parts) -> Result<Self, EngineError> {
        let (max_tasks, window_bytes) = (parts.config.max_requests, parts.config.window_bytes);
        let limits = ServerLimits { max_tasks, window_bytes };
        let config = (parts.config.schedule(), limits);
        let server = Server::start(&parts.engine, &parts.memory, config)?;
        let inner = Inner {
            recent: RecentSessions::new(parts.config.recent_bytes, server.sets_aside()),
            server,
            readings: Mutex::default(),
            changing: Mutex::default(),
            replies: Replies::default(),
            measures: Measures::default(),
            is_draining: AtomicBool::new(false),
            started: now(),
            parts,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The model.
    pub fn engine(&self) -> &Engine {
        &self.inner.parts.engine
    }

    /// What it is called.
    pub fn model(&self) -> &str {
        &self.inner.parts.model
    }

    /// How new texts are remembered.
    pub fn memory(&self) -> &MemoryConfig {
        &self.inner.parts.memory
    }

    /// How it is set up.
    pub fn config(&self) -> &ServeConfig {
        &self.inner.parts.config
    }

    /// Who may call.
    pub fn keys(&self) -> &Keys {
        &self.inner.parts.keys
    }

    /// Where contexts lie.
    pub fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    /// A tenant's contexts.
    pub fn contexts(&self, tenant: &Tenant) -> Contexts {
        Contexts::new(self.engine().clone(), self.store().clone(), &tenant.0)
    }

    /// Who runs the steps.
    pub fn server(&self) -> &Server {
        &self.inner.server
    }

    /// What was said lately.
    pub fn recent(&self) -> &RecentSessions {
        &self.inner.recent
    }

    /// Replies to requests that may be sent again.
    pub fn replies(&self) -> &Replies {
        &self.inner.replies
    }

    /// What is measured.
    pub fn measures(&self) -> &Measures {
        &self.inner.measures
    }

    /// When it started, in seconds since 1970.
    pub fn started(&self) -> u64 {
        self.inner.started
    }

    /// A place for a request that needs the model.
    ///
    /// # Errors
    /// When there is none, or the service is ending.
    pub fn reserve(&self) -> Result<Place, ApiError> {
        if self.is_draining() {
            return Err(ApiError::draining());
        }
        let max = self.config().max_requests;
        self.inner.server.reserve().ok_or_else(|| {
            self.measures().count_refused();
            ApiError::overloaded(max)
        })
    }

    /// The right to change a context.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn change(&self, tenant: &Tenant, name: &str) -> Result<Changing, ApiError> {
        let of = (tenant.clone(), name.to_owned());
        match locked(&self.inner.changing).insert(of.clone()) {
            true => Ok(Changing { service: self.clone(), of }),
            false => Err(ApiError::busy(name)),
        }
    }

    /// The reading of a context, if it is being read or has failed to be.
    pub fn reading(&self, tenant: &Tenant, name: &str) -> Option<Arc<Reading>> {
        locked(&self.inner.readings).get(&(tenant.clone(), name.to_owned())).cloned()
    }

    /// What the store knows of a context.
    ///
    /// # Errors
    /// When there is none, or it is being read for the first time and nothing of it is kept yet.
    pub fn stored(&self, tenant: &Tenant, name: &str) -> Result<ContextSummary, ApiError> {
        if let Some(stored) = self.store().show(&tenant.0, name)? {
            return Ok(stored);
        }
        let reading = self.reading(tenant, name);
        match reading.is_some_and(|reading| reading.progress().status.is_under_way()) {
            true => Err(ApiError::busy(name)),
            false => Err(ApiError::no_context(name)),
        }
    }

    /// Refuses what takes more of the disk than the tenant may.
    ///
    /// # Errors
    /// When there is no room for `wanted` bytes, about.
    pub fn check_room(&self, tenant: &str, wanted: u64) -> Result<(), ApiError> {
        let max = self.config().tenant_max_bytes;
        if max == 0 {
            return Ok(());
        }
        let used: u64 = self.store().list(tenant)?.iter().map(|context| context.own_bytes).sum();
        match used.saturating_add(wanted) > max {
            true => Err(ApiError::store_full(format!(
                "{used} of the {max} bytes that this tenant may take on the disk are taken, and \
                 this takes {wanted} or more: delete some contexts."
            ))),
            false => Ok(()),
        }
    }

    /// All readings of a tenant.
    pub fn readings(&self, tenant: &Tenant) -> Vec<(String, Arc<Reading>)> {
        let readings = locked(&self.inner.readings);
        let of_tenant = readings.iter().filter(|((owner, _), _)| owner == tenant);
        of_tenant.map(|((_, name), reading)| (name.clone(), Arc::clone(reading))).collect()
    }

    /// Has a reading known.
    pub fn add_reading(&self, tenant: &Tenant, name: &str, reading: Arc<Reading>) {
        locked(&self.inner.readings).insert((tenant.clone(), name.to_owned()), reading);
    }

    /// Has a reading known no more.
    pub fn remove_reading(&self, tenant: &Tenant, name: &str) -> Option<Arc<Reading>> {
        locked(&self.inner.readings).remove(&(tenant.clone(), name.to_owned()))
    }

    /// Stops all readings; what was read is kept.
    pub fn stop_readings(&self) {
        locked(&self.inner.readings).values().for_each(|reading| reading.stop());
    }

    /// Whether no new requests are taken.
    pub fn is_draining(&self) -> bool {
        self.inner.is_draining.load(Ordering::Acquire)
    }

    /// Takes no new requests from now on.
    pub fn drain(&self) {
        self.inner.is_draining.store(true, Ordering::Release);
    }
}

/// What a panic left behind is as sound as before: all changes are single steps.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
