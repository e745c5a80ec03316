//! The board: how each member's nodes answer, and what they say of themselves. Asked now and then, published to every peer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::{
    contract::province::GetNodeResponse,
    member::Member,
    time::{Clock, UnixTime},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::route::Routes;

/// How long a node has to say how it is.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// The longest name of a software that is shown.
const MAX_SOFTWARE_BYTES: usize = 64;

/// What is known of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whether the last question was answered; `None` before the first.
    pub(crate) serving: Option<bool>,
    /// When one was last answered.
    pub(crate) last_answer: Option<UnixTime>,
    /// The node's software, as it says itself.
    pub(crate) software: String,
    /// The version of the trust list it holds.
    pub(crate) trust_list_version: u64,
    /// The version of the policy it holds.
    pub(crate) policy_version: u64,
    /// How far its clock is ahead of ours, in seconds.
    pub(crate) clock_offset: i64,
}

/// The board.
#[derive(Debug)]
pub(crate) struct Board {
    notices: Mutex<BTreeMap<Member, Notice>>,
    changed: watch::Sender<u64>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { notices: Mutex::default(), changed: watch::channel(0).0 }
    }

    /// What is known of a member.
    pub(crate) fn notice(&self, member: Member) -> Notice {
        self.lock().get(&member).cloned().unwrap_or_default()
    }

    /// Tells of every change of health or version.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Asks every member of `routes` again and again until `shutdown`.
    pub(crate) async fn keep(
        self: Arc<Self>,
        routes: Arc<Routes>,
        clock: Arc<dyn Clock>,
        every: Duration,
        shutdown: CancellationToken,
    ) {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            let mut asking = JoinSet::new();
            for (member, home) in routes.all() {
                asking.spawn(async move { (member, home.client.describe(ASK_WITHIN).await.ok()) });
            }
            while let Some(asked) = asking.join_next().await {
                if let Ok((member, answer)) = asked {
                    self.note(member, answer, clock.now());
                }
            }
        }
    }

    fn note(&self, member: Member, answer: Option<GetNodeResponse>, now: UnixTime) {
        let mut notices = self.lock();
        let before = notices.get(&member).cloned().unwrap_or_default();
        let after = match answer {
            Some(answer) => notice_of(answer, now),
            None => Notice { serving: Some(false), ..before.clone() },
        };
        let unchanged = Notice { last_answer: before.last_answer, clock_offset: before.clock_offset, ..after.clone() };
        let changed = unchanged != before;
        notices.insert(member, after);
        drop(notices);
        if changed {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Member, Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn notice_of(answer: GetNodeResponse, now: UnixTime) -> Notice {
    let printable =
        answer.software.len() <= MAX_SOFTWARE_BYTES && answer.software.bytes().all(|b| b.is_ascii_graphic());
    let node_time = answer.node_time.map_or(0, |time| time.seconds);
    Notice {
        serving: Some(true),
        last_answer: Some(now),
        software: if printable { answer.software } else { String::new() },
        trust_list_version: answer.trust_list_version,
        policy_version: answer.policy_version,
        clock_offset: node_time.saturating_sub_unsigned(now.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn answer(software: &str, version: u64) -> Option<GetNodeResponse> {
        let node_time = Some(NOW.plus(Duration::from_secs(7)).to_protobuf());
        Some(GetNodeResponse {
            software: software.into(),
            trust_list_version: version,
            node_time,
            ..Default::default()
        })
    }

    #[test]
    fn changes_of_health_or_version_are_told_and_nothing_else() {
        let (board, member) = (Board::new(), Member::PLATFORM);
        let mut changes = board.subscribe();
        let mut told = || std::mem::replace(&mut changes, board.subscribe()).has_changed().unwrap();
        assert_eq!(board.notice(member), Notice::default());
        board.note(member, answer("node/1", 1), NOW);
        assert!(told());
        board.note(member, answer("node/1", 1), NOW.plus(Duration::from_secs(10)));
        assert!(!told(), "only the time has passed");
        board.note(member, None, NOW);
        assert!(told());
        let notice = board.notice(member);
        assert_eq!((notice.serving, notice.software.as_str()), (Some(false), "node/1"));
        board.note(member, answer("a lie\n", 2), NOW);
        assert!(told());
        assert_eq!((board.notice(member).software.as_str(), board.notice(member).clock_offset), ("", 7));
    }
}
