//! What is PostgreSQL's own: a server that is slow, gone and back, where it is, and what it is told. What many writers see
//! is in [`together`].

mod together;

use std::{fs, process::Command, time::Instant};

use proto::{random::SystemRandom, statement::LogHead, terms::Scope, token::Cti};
use sqlx::Connection as _;

use super::{cluster::Cluster, *};
use crate::{
    store::{Store, suite},
    test_support::{NOW, RETENTION, vault},
};

fn limits() -> PostgresLimits {
    PostgresLimits { max_connections: 4, ..PostgresLimits::default() }
}

/// How long a call may take by these limits, and a little more for a machine that has other things to do.
fn patience() -> Duration {
    limits().acquire_timeout + limits().statement_timeout + Duration::from_millis(1500)
}

async fn open_with(url: &str, limits: PostgresLimits, dir: &Path) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(url, limits, dir, vault(), Arc::new(SystemRandom)).await
}

async fn open(url: &str, dir: &Path) -> PostgresStore {
    open_with(url, PostgresLimits::default(), dir).await.unwrap()
}

/// What a call that cannot be answered says, and that it says so in time.
async fn unanswered<T: std::fmt::Debug>(call: impl Future<Output = Result<T, StoreError>>) {
    let began = Instant::now();
    let refused = call.await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < patience(), "{:?}", began.elapsed());
}

/// Waits until the store answers, for some seconds.
async fn answer(store: &PostgresStore) -> LogHead {
    for _ in 0..50 {
        match store.head().await {
            Ok(head) => return head,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the store does not answer any more: {:?}", store.head().await)
}

/// Waits until it takes changes, too: that a connection of before the server went is gone shows when it is used.
async fn take_changes(store: &PostgresStore) {
    for _ in 0..50 {
        match store.sweep(NOW, RETENTION).await {
            Ok(_) => return,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the store takes no changes any more: {:?}", store.sweep(NOW, RETENTION).await)
}

fn cause(refused: Result<PostgresStore, StoreError>) -> String {
    let Err(StoreError::Unavailable(cause)) = refused else { panic!("{refused:?}") };
    cause.to_string()
}

#[tokio::test]
async fn evidence_is_found_by_an_index_however_much_there_is() {
    let Some(cluster) = Cluster::shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = open(&cluster.database().await, dir.path()).await;
    let mut connection = store.readers.acquire().await.unwrap();
    // An empty table would be read whole.
    sqlx::query("SET enable_seqscan = off").execute(&mut *connection).await.unwrap();
    for (statement, index) in sql::asked_of_evidence() {
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("EXPLAIN {statement}")))
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{statement}: {plan}");
    }
}

#[tokio::test]
async fn upholds_the_stores_contract() {
    let Some(cluster) = Cluster::shared() else { return };
    suite::run(async || {
        let dir = tempfile::tempdir().unwrap();
        (open(&cluster.database().await, dir.path()).await, dir)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_said_to_be_and_used_when_it_is_back() {
    let Some(cluster) = Cluster::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&cluster.database().await, limits(), dir.path()).await.unwrap();
    let person = suite::add_person(&store, 0).await;
    let consent = suite::consent(person, NOW, proto::terms::Kind::Own);
    suite::issue(&store, &consent).await.unwrap();
    let before = suite::set(&store, "request-1", &suite::assignment(0, "红码", NOW)).await.unwrap();
    cluster.stop();
    for _ in 0..2 {
        unanswered(store.head()).await;
        unanswered(store.find(Cti([1; 16]), Scope::ALL)).await;
        unanswered(suite::set(&store, "request-2", &suite::assignment(0, "黄码", NOW))).await;
    }
    cluster.resume("");
    assert_eq!(answer(&store).await, before.head, "what was acknowledged is there, and no epoch is lost for it");
    assert_eq!(suite::set(&store, "request-1", &suite::assignment(0, "红码", NOW)).await.unwrap(), before);
    let after = suite::set(&store, "request-2", &suite::assignment(0, "黄码", NOW)).await.unwrap();
    assert_eq!(after.head.seq, before.head.seq + 1);
}

#[tokio::test]
async fn a_server_that_stands_still_keeps_nobody_waiting_and_no_place() {
    let Some(cluster) = Cluster::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&cluster.database().await, limits(), dir.path()).await.unwrap();
    // All that read are there, and lately used.
    let (one, other) = tokio::join!(store.head(), store.head());
    assert_eq!(one.unwrap(), other.unwrap());
    let processes = cluster.processes();
    let signal = |name: &str| assert!(Command::new("kill").arg(name).args(&processes).status().unwrap().success());
    signal("-STOP");
    for _ in 0..2 {
        unanswered(store.head()).await;
        unanswered(store.find(Cti([1; 16]), Scope::ALL)).await;
    }
    signal("-CONT");
    answer(&store).await;
}

#[tokio::test]
async fn who_waits_for_a_lock_is_told_in_time_and_nobody_else_is_kept() {
    let Some(cluster) = Cluster::shared() else { return };
    let (url, dir) = (cluster.database().await, tempfile::tempdir().unwrap());
    let store = open_with(&url, limits(), dir.path()).await.unwrap();
    let person = suite::add_person(&store, 0).await;
    let consent = suite::consent(person, NOW, proto::terms::Kind::Own);
    suite::issue(&store, &consent).await.unwrap();
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    for (n, table) in ["person", "log_head"].into_iter().enumerate() {
        let mut tx = other.begin().await.unwrap();
        let lock = sqlx::AssertSqlSafe(format!("SELECT 1 FROM {table} FOR UPDATE"));
        sqlx::raw_sql(lock).execute(&mut *tx).await.unwrap();
        let (id, assignment) = (format!("request-{n}"), suite::assignment(0, &format!("label {n}"), NOW));
        // More of them than there are connections.
        let waiting = (0..6).map(|_| {
            let (store, id, assignment) = (store.clone(), id.clone(), assignment.clone());
            tokio::spawn(async move { unanswered(suite::set(&store, &id, &assignment)).await })
        });
        let waiting: Vec<_> = waiting.collect();
        // Who only asks waits for nobody.
        for _ in 0..20 {
            let found = timeout(Duration::from_millis(500), store.find(consent.cti, Scope::ALL)).await;
            assert!(found.expect("at once").unwrap().found.is_some());
            sleep(Duration::from_millis(20)).await;
        }
        for waiting in waiting {
            waiting.await.unwrap();
        }
        tx.rollback().await.unwrap();
        let assigned = suite::set(&store, &id, &assignment).await.unwrap();
        assert_eq!((assigned.changed, assigned.head.seq), (1, n as u64 + 1), "what was given up left no gap");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_never_says_a_word_does_not_open() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    for url in [
        format!("postgres://home:open-sesame@127.0.0.1:{port}/home?sslmode=disable"),
        format!("postgres://home:open-sesame@localhost/home?host={}", dir.path().display()),
        "postgres://home:open-sesame@[/home".to_owned(),
    ] {
        let began = Instant::now();
        let refused = open_with(&url, limits(), dir.path()).await;
        let shown = format!("{refused:?}") + &cause(refused);
        assert!(!shown.contains("sesame"), "{shown}");
        assert!(began.elapsed() < patience());
    }
}

#[tokio::test]
async fn a_database_that_would_not_do_is_refused_with_the_mend() {
    let Some(cluster) = Cluster::shared() else { return };
    let (url, dir) = (cluster.database().await, tempfile::tempdir().unwrap());
    let mut admin = sqlx::PgConnection::connect(&url).await.unwrap();
    let ascii = "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0";
    sqlx::raw_sql(ascii).execute(&mut admin).await.unwrap();
    let refused = cause(open_with(&cluster.url("ascii"), limits(), dir.path()).await);
    assert_eq!(refused, "the database's encoding is SQL_ASCII; it has to be UTF8");
    open(&url, dir.path()).await.close().await;
    let older = "UPDATE _sqlx_migrations SET checksum = decode('00', 'hex')";
    sqlx::raw_sql(older).execute(&mut admin).await.unwrap();
    let refused = cause(open_with(&url, limits(), dir.path()).await);
    assert_eq!(refused, "it was made by an earlier development version; remove it, or name another database");
}

#[tokio::test]
async fn what_is_acknowledged_is_on_disk_whatever_the_servers_default() {
    let Some(cluster) = Cluster::shared() else { return };
    let (url, dir) = (cluster.database().await, tempfile::tempdir().unwrap());
    let mut admin = sqlx::PgConnection::connect(&url).await.unwrap();
    let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut admin).await.unwrap();
    let off = sqlx::AssertSqlSafe(format!("ALTER DATABASE {database} SET synchronous_commit = off"));
    sqlx::raw_sql(off).execute(&mut admin).await.unwrap();
    let store = open_with(&url, limits(), dir.path()).await.unwrap();
    for (setting, expected) in [("synchronous_commit", "on"), ("statement_timeout", "1s"), ("lock_timeout", "1s")] {
        let shown = sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(setting);
        assert_eq!(shown.fetch_one(&mut *store.reader().await.unwrap()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_standby_is_not_believed_and_one_that_took_over_begins_a_new_epoch() {
    let Some(cluster) = Cluster::start() else { return };
    let url = cluster.database().await;
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [first, second] = [&dirs[0], &dirs[1]];
    let first = open_with(&url, limits(), first.path()).await.unwrap();
    let second = open_with(&url, limits(), second.path()).await.unwrap();
    suite::event(&first).await;
    let before = second.head().await.unwrap();
    assert_eq!(before, first.head().await.unwrap());

    cluster.stop();
    cluster.be_standby();
    unanswered(first.head()).await;
    assert!(cause(open_with(&url, limits(), dirs[2].path()).await).contains("standby"));
    cluster.promote();
    let [head, seen] = [answer(&first).await, answer(&second).await];
    assert_ne!(head.epoch, before.epoch, "it may lack the last events");
    assert_eq!((head, head.seq), (seen, before.seq), "what one node found out is not found out again");
    // Nor by one that starts, with a witness of the epoch before, or with none.
    second.close().await;
    assert_eq!(open(&url, dirs[1].path()).await.head().await.unwrap(), head);
    assert_eq!(open(&url, dirs[2].path()).await.head().await.unwrap(), head);
    let renewed = first.renew_epoch(&SystemRandom).await.unwrap();
    assert_ne!(renewed.epoch, head.epoch);
    assert_eq!(open(&url, dirs[1].path()).await.head().await.unwrap(), renewed);
}

#[tokio::test]
async fn a_copy_that_was_put_back_begins_a_new_epoch_under_a_node_that_runs_too() {
    let Some(cluster) = Cluster::start() else { return };
    let (url, dir) = (cluster.database().await, tempfile::tempdir().unwrap());
    // One connection to write by.
    let store = open_with(&url, PostgresLimits { max_connections: 2, ..limits() }, dir.path()).await.unwrap();
    let before = store.head().await.unwrap();
    cluster.stop();
    cluster.copy("data", "copy");
    cluster.resume("");
    assert_eq!(answer(&store).await, before, "a restart is no restore");
    take_changes(&store).await;
    suite::event(&store).await;
    cluster.stop();
    cluster.copy("copy", "data");
    cluster.resume("");
    let after = answer(&store).await;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.seq, before.seq);
    store.close().await;
    assert_eq!(open(&url, dir.path()).await.head().await.unwrap(), after, "and keeps it");
}

/// All bytes of a directory's files, and of those below it.
fn bytes_below(dir: &Path) -> Vec<u8> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| match path.is_dir() {
        true => bytes_below(&path),
        // What is gone meanwhile, or is a socket, has nothing to tell.
        false => fs::read(&path).unwrap_or_default(),
    };
    entries.map(read).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn the_servers_files_name_nobody() {
    let Some(cluster) = Cluster::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = open(&cluster.database().await, dir.path()).await;
    suite::event(&store).await;
    let assignment = suite::assignment(0, "红码", NOW);
    suite::set(&store, "request-1", &assignment).await.unwrap();
    store.close().await;
    cluster.stop();
    let bytes = bytes_below(cluster.dir());
    let name = suite::name();
    let needles = [assignment.document.number(), name.as_str(), &assignment.justification].map(str::as_bytes);
    let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(contains("红码".as_bytes()));
    assert_eq!(needles.map(contains), [false; 3]);
}

#[tokio::test]
async fn who_only_looks_writes_nothing_and_learns_nobody() {
    let Some(cluster) = Cluster::shared() else { return };
    let (url, dir) = (cluster.database().await, tempfile::tempdir().unwrap());
    let store = open(&url, dir.path()).await;
    suite::traveler_with_accesses(&store, 2).await;
    let random = Arc::new(SystemRandom);
    let look = PostgresStore::inspect(&url, limits(), dir.path(), random).await.unwrap();
    assert_eq!(look.access_logs().await.unwrap(), store.access_logs().await.unwrap());
    assert!(matches!(look.revoke_standing(NOW, &SystemRandom).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(look.find(Cti([1; 16]), Scope::ALL).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn the_connection_is_the_servers_that_the_certificate_names() {
    let Some(cluster) = Cluster::start() else { return };
    let (dir, authority) = (tempfile::tempdir().unwrap(), cluster.be_certified("localhost"));
    let port = cluster.listen();
    let url = |host: &str, authority: &Path| {
        let authority = authority.display();
        format!("postgres://postgres@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={authority}")
    };
    // A handshake takes its time beside all the other tests.
    let limits = PostgresLimits { acquire_timeout: Duration::from_secs(10), ..limits() };
    open_with(&url("localhost", &authority), limits, dir.path()).await.unwrap();
    let other = dir.path().join("other.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(&other, rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()).unwrap();
    for (host, authority) in [("127.0.0.1", &authority), ("localhost", &other)] {
        let refused = cause(open_with(&url(host, authority), limits, dir.path()).await);
        assert!(refused.to_lowercase().contains("certificate"), "{refused}");
    }
}
