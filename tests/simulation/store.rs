//! Home's one store, as its two endpoints see it: the first commits, the second reads a copy that lags behind.
//!
//! Every operation runs to its end on a thread of the real world while the simulation's thread waits: simulated time stands
//! still, and everything has one order.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use proto::{log::LogId, random::Random, statement::LogHead, terms::Scope, time::UnixTime, token::Cti};
use province_stub::{
    assessment::Assess,
    document::Document,
    request::RequestKey,
    store::{
        Assigned, Change, Device, DeviceId, Forgotten, Found, IssuedConsent, IssuedToken, NewAssignment, NewConsent,
        NewDevice, NewPerson, PageKey, PersonId, Retention, Snapshot, Store, StoreError,
        access_log::{AccessKey, Delivered, Delivery, LogOnFile, RecordOnFile, TravelerAccess},
        filing::{
            Cleared, CodeOnFile, Effect, Intake, OperatorAccess, OperatorLook, PersonFile, PushedCode, PushedIn,
            Reassessed, TakenIn,
        },
        sqlite::SqliteStore,
    },
    vault::Vault,
};
use tokio::sync::watch;

use crate::{clock::now, history::At, world::real};

/// Home's store, wherever it is open.
#[derive(Debug)]
pub(crate) struct Shared {
    lag: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    store: Option<SqliteStore>,
    /// What a reader saw from when on, latest last. None are kept without a lag.
    images: VecDeque<(At, Arc<Image>)>,
    /// Who waits for commits. A channel each: one channel would wake those who share it in no certain order.
    waiting: Vec<watch::Sender<()>>,
}

/// All that is looked at, as it stood at one moment.
#[derive(Clone, Debug)]
struct Image {
    head: LogHead,
    found: BTreeMap<Cti, Option<Found>>,
}

impl Shared {
    /// Not open yet. Readers of the copy are behind by `lag`, and these are the consents that they look at.
    pub(crate) fn new(lag: Duration) -> Arc<Self> {
        Arc::new(Self { lag, state: Mutex::default() })
    }

    /// Opens the store for the endpoint that commits.
    pub(crate) fn open(
        self: &Arc<Self>,
        path: &Path,
        vault: Vault,
        random: &dyn Random,
        watched: impl IntoIterator<Item = Cti>,
    ) -> Result<Endpoint, StoreError> {
        let store = wait(SqliteStore::open(path, vault, random))?;
        self.lock().store = Some(store.clone());
        let endpoint = Endpoint { shared: self.clone(), commits: true };
        let known = endpoint.copy_of_now();
        endpoint.look_at(&store, watched.into_iter().chain(known.into_keys()))?;
        Ok(endpoint)
    }

    /// The endpoint that reads the copy.
    pub(crate) fn replica(self: &Arc<Self>) -> Endpoint {
        Endpoint { shared: self.clone(), commits: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One endpoint's store.
#[derive(Debug)]
pub(crate) struct Endpoint {
    shared: Arc<Shared>,
    commits: bool,
}

impl Drop for Endpoint {
    /// The process ends: the file is let go of before another opens it.
    fn drop(&mut self) {
        let store = if self.commits { self.shared.lock().store.take() } else { None };
        if let Some(store) = store {
            wait(store.close());
        }
    }
}

impl Endpoint {
    /// The committing store. While it is not open nobody reads it, and so nobody echoes for it.
    fn store(&self) -> Result<SqliteStore, StoreError> {
        let store = self.shared.lock().store.clone();
        store.ok_or_else(|| StoreError::Unavailable("the committing store is not open".into()))
    }

    /// Something was committed: `new` consents, and whatever the log says.
    fn committed(&self, store: &SqliteStore, new: Option<Cti>) -> Result<(), StoreError> {
        let before = self.shared.lock().images.back().map(|(_, image)| image.head);
        if let Some(before) = before {
            let known = self.copy_of_now();
            let changes = wait(store.changes(before.seq, u32::MAX))?;
            let changed = changes.iter().map(|change| change.cti).filter(|cti| known.contains_key(cti));
            self.look_at(store, changed.chain(new))?;
        }
        self.shared.lock().waiting.retain(|waiting| waiting.send(()).is_ok());
        Ok(())
    }

    /// Takes an image of what stands now: of these consents anew.
    fn look_at(&self, store: &SqliteStore, consents: impl IntoIterator<Item = Cti>) -> Result<(), StoreError> {
        if self.shared.lag.is_zero() {
            return Ok(());
        }
        let head = wait(store.head())?;
        let mut found = self.copy_of_now();
        for cti in consents {
            found.insert(cti, wait(store.find(cti, Scope::ALL))?.found);
        }
        let now = now();
        let mut state = self.shared.lock();
        state.images.push_back((now, Arc::new(Image { head, found })));
        while state.images.get(1).is_some_and(|(at, _)| *at + self.shared.lag <= now) {
            state.images.pop_front();
        }
        Ok(())
    }

    fn copy_of_now(&self) -> BTreeMap<Cti, Option<Found>> {
        self.shared.lock().images.back().map(|(_, image)| image.found.clone()).unwrap_or_default()
    }

    /// What the copy shows now.
    fn copy(&self) -> Option<Arc<Image>> {
        let (lag, now) = (self.shared.lag, now());
        let state = self.shared.lock();
        let shown = state.images.iter().rev().find(|(at, _)| *at + lag <= now).or(state.images.front());
        shown.map(|(_, image)| image.clone())
    }
}

/// Waits here, on the simulation's thread, for what another thread does.
fn wait<T: Send>(operation: impl Future<Output = T> + Send) -> T {
    thread::scope(|scope| match scope.spawn(|| real().handle().block_on(operation)).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl Store for Endpoint {
    async fn enroll_device(
        &self,
        request: &RequestKey,
        device: &NewDevice,
        limit: u32,
    ) -> Result<(DeviceId, LogHead), StoreError> {
        wait(self.store()?.enroll_device(request, device, limit))
    }

    async fn device(&self, id: DeviceId) -> Result<Device, StoreError> {
        wait(self.store()?.device(id))
    }

    async fn issue_consent(
        &self,
        request: &RequestKey,
        consent: &NewConsent,
        limit: u32,
        random: &dyn Random,
    ) -> Result<(IssuedToken, LogHead), StoreError> {
        let store = self.store()?;
        let issued = wait(store.issue_consent(request, consent, limit, random))?;
        self.committed(&store, Some(issued.0.cti))?;
        Ok(issued)
    }

    async fn issue_standing(&self, consents: &[NewConsent], limit: u32) -> Result<(), StoreError> {
        wait(self.store()?.issue_standing(consents, limit))
    }

    async fn revoke_consent(&self, cti: Cti, of: Option<PersonId>, now: UnixTime) -> Result<LogHead, StoreError> {
        let store = self.store()?;
        let head = wait(store.revoke_consent(cti, of, now))?;
        self.committed(&store, None)?;
        Ok(head)
    }

    async fn consents(
        &self,
        person: PersonId,
        now: UnixTime,
        after: Option<PageKey>,
        limit: u32,
    ) -> Result<Vec<IssuedConsent>, StoreError> {
        wait(self.store()?.consents(person, now, after, limit))
    }

    async fn revoke_standing(&self, now: UnixTime, random: &dyn Random) -> Result<u32, StoreError> {
        wait(self.store()?.revoke_standing(now, random))
    }

    async fn delete_traveler(
        &self,
        device: DeviceId,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<Forgotten, StoreError> {
        let store = self.store()?;
        let forgotten = wait(store.delete_traveler(device, now, random))?;
        self.committed(&store, None)?;
        Ok(forgotten)
    }

    async fn find(&self, cti: Cti, scope: Scope) -> Result<Snapshot, StoreError> {
        if !self.commits
            && let Some(image) = self.copy()
        {
            return Ok(Snapshot { head: image.head, found: image.found.get(&cti).cloned().flatten() });
        }
        wait(self.store()?.find(cti, scope))
    }

    async fn set_code(
        &self,
        request: &RequestKey,
        assignment: &NewAssignment,
        random: &dyn Random,
    ) -> Result<Assigned, StoreError> {
        let store = self.store()?;
        let assigned = wait(store.set_code(request, assignment, random))?;
        self.committed(&store, None)?;
        Ok(assigned)
    }

    async fn seed(&self, people: &[NewPerson], now: UnixTime) -> Result<u32, StoreError> {
        wait(self.store()?.seed(people, now))
    }

    async fn person_by_document(&self, document: &Document) -> Result<Option<PersonId>, StoreError> {
        wait(self.store()?.person_by_document(document))
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        wait(self.store()?.head())
    }

    fn commits(&self) -> watch::Receiver<()> {
        let (waiting, commits) = watch::channel(());
        self.shared.lock().waiting.push(waiting);
        commits
    }

    async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>, StoreError> {
        wait(self.store()?.changes(after, limit))
    }

    async fn record_accesses(&self, delivery: &Delivery) -> Result<Delivered, StoreError> {
        wait(self.store()?.record_accesses(delivery))
    }

    async fn accesses(
        &self,
        person: PersonId,
        until: UnixTime,
        after: Option<AccessKey>,
        limit: u32,
    ) -> Result<Vec<TravelerAccess>, StoreError> {
        wait(self.store()?.accesses(person, until, after, limit))
    }

    async fn access_logs(&self) -> Result<Vec<LogOnFile>, StoreError> {
        wait(self.store()?.access_logs())
    }

    async fn access_records(&self, log: LogId, from: u64, limit: u32) -> Result<Vec<RecordOnFile>, StoreError> {
        wait(self.store()?.access_records(log, from, limit))
    }

    async fn sweep(&self, now: UnixTime, retention: Retention) -> Result<u64, StoreError> {
        wait(self.store()?.sweep(now, retention))
    }

    async fn put_evidence(
        &self,
        intake: &Intake<'_>,
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> Result<TakenIn, StoreError> {
        let store = self.store()?;
        let taken = wait(store.put_evidence(intake, assess, random))?;
        self.committed(&store, None)?;
        Ok(taken)
    }

    async fn put_codes(
        &self,
        request: &RequestKey,
        codes: &[Option<PushedCode>],
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> Result<PushedIn, StoreError> {
        let store = self.store()?;
        let pushed = wait(store.put_codes(request, codes, assess, random))?;
        self.committed(&store, None)?;
        Ok(pushed)
    }

    async fn clear_code(
        &self,
        request: &RequestKey,
        cleared: &Cleared,
        assess: &dyn Assess,
        random: &dyn Random,
    ) -> Result<Effect, StoreError> {
        let store = self.store()?;
        let effect = wait(store.clear_code(request, cleared, assess, random))?;
        self.committed(&store, None)?;
        Ok(effect)
    }

    async fn next_due(&self) -> Result<Option<UnixTime>, StoreError> {
        wait(self.store()?.next_due())
    }

    async fn reassess_due(
        &self,
        limit: u32,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<Reassessed, StoreError> {
        let store = self.store()?;
        let reassessed = wait(store.reassess_due(limit, assess, now, random))?;
        self.committed(&store, None)?;
        Ok(reassessed)
    }

    async fn reassess_person(
        &self,
        person: PersonId,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<Reassessed, StoreError> {
        let store = self.store()?;
        let reassessed = wait(store.reassess_person(person, assess, now, random))?;
        self.committed(&store, None)?;
        Ok(reassessed)
    }

    async fn reassess_following(
        &self,
        after: PersonId,
        limit: u32,
        assess: &dyn Assess,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<(Reassessed, Option<PersonId>), StoreError> {
        let store = self.store()?;
        let reassessed = wait(store.reassess_following(after, limit, assess, now, random))?;
        self.committed(&store, None)?;
        Ok(reassessed)
    }

    async fn assessed_rules(&self) -> Result<u64, StoreError> {
        wait(self.store()?.assessed_rules())
    }

    async fn set_assessed_rules(&self, digest: u64) -> Result<(), StoreError> {
        wait(self.store()?.set_assessed_rules(digest))
    }

    async fn code_on_file(&self, person: PersonId) -> Result<Option<CodeOnFile>, StoreError> {
        wait(self.store()?.code_on_file(person))
    }

    async fn record_operator_access(&self, access: &OperatorAccess) -> Result<PersonId, StoreError> {
        wait(self.store()?.record_operator_access(access))
    }

    async fn operator_looks(
        &self,
        person: PersonId,
        before: Option<(UnixTime, u64)>,
        limit: u32,
    ) -> Result<Vec<OperatorLook>, StoreError> {
        wait(self.store()?.operator_looks(person, before, limit))
    }

    async fn person_file(&self, person: PersonId) -> Result<PersonFile, StoreError> {
        wait(self.store()?.person_file(person))
    }

    async fn reseal(&self, limit: u32) -> Result<u64, StoreError> {
        wait(self.store()?.reseal(limit))
    }

    async fn close(&self) {}
}
