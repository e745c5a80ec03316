//! What may have stood at home, and when: everything that a history leaves possible.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::history::{At, At3, Change, Event, PassId, Restored, Value, Write};

/// How long a token that was just issued may be unknown to a copy that is behind. Nobody is let through by that.
const NEWS: Duration = Duration::from_secs(5);
const NEVER: At = Duration::MAX;

/// What stood at the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Each person's code.
    pub(crate) codes: Vec<Value>,
    /// Each token's person.
    pub(crate) passes: Vec<usize>,
}

/// All that can be changed at home, each by itself.
#[derive(Debug)]
pub(crate) struct Registers {
    codes: Vec<Register<Value>>,
    passes: BTreeMap<PassId, Pass>,
}

#[derive(Debug)]
struct Pass {
    person: usize,
    issued: Register<bool>,
    revoked: Register<bool>,
}

/// What one of them may have held.
#[derive(Debug)]
struct Register<T>(Vec<Held<T>>);

/// A value, that may have stood from one moment to another.
#[derive(Clone, Copy, Debug)]
struct Held<T> {
    value: T,
    from: At,
    until: At,
}

impl Registers {
    /// What a history leaves possible. Its writes and restores are in the order in which they ended.
    pub(crate) fn of(setup: &Setup, history: &[Event]) -> Self {
        let pass = |(number, person): (usize, &usize)| (number, Pass::new(*person, true));
        let mut registers = Self {
            codes: setup.codes.iter().map(|code| Register::new(*code)).collect(),
            passes: setup.passes.iter().enumerate().map(pass).collect(),
        };
        // A token exists as nothing before it is issued.
        for event in history {
            if let Event::Write(Write { what: Change::Issue(person, pass), .. }) = event {
                registers.passes.insert(*pass, Pass::new(*person, false));
            }
        }
        for event in history {
            match event {
                Event::Write(write) => registers.write(write),
                Event::Restored(restored) => registers.restore(restored),
                Event::Ask(_) | Event::Fault(..) => {}
            }
        }
        registers
    }

    fn write(&mut self, write: &Write) {
        match write.what {
            Change::Code(person, value) => self.codes[person].write(value, write),
            Change::Revoke(pass) => {
                if let Some(pass) = self.passes.get_mut(&pass) {
                    pass.revoked.write(true, write);
                }
            }
            Change::Issue(_, pass) => {
                if let Some(pass) = self.passes.get_mut(&pass) {
                    pass.issued.write(true, write);
                }
            }
        }
    }

    fn restore(&mut self, restored: &Restored) {
        self.codes.iter_mut().for_each(|code| code.restore(restored));
        for pass in self.passes.values_mut() {
            pass.issued.restore(restored);
            pass.revoked.restore(restored);
        }
    }

    /// Whether a token's value may have been in force at some moment after `since`, having begun before `before`.
    pub(crate) fn allow(&self, pass: PassId, value: Value, since: At, before: At) -> bool {
        let Some(Pass { person, issued, revoked }) = self.passes.get(&pass) else { return false };
        let code = &self.codes[*person];
        match value {
            Value::Revoked => revoked.allows(true, since, before),
            Value::Nothing => {
                code.allows(Value::Nothing, since, before) || issued.allows(false, since.saturating_sub(NEWS), before)
            }
            value => {
                code.allows(value, since, before)
                    && revoked.allows(false, since, before)
                    && issued.allows(true, since, before)
            }
        }
    }

    /// What may have stood behind a token in that time.
    pub(crate) fn describe(&self, pass: PassId, since: At, before: At) -> String {
        let Some(Pass { person, issued, revoked }) = self.passes.get(&pass) else { return "no such token".into() };
        let code = self.codes[*person].describe(since, before);
        format!("{code}; issued {}; revoked {}", issued.describe(since, before), revoked.describe(since, before))
    }
}

impl Pass {
    fn new(person: usize, issued: bool) -> Self {
        Self { person, issued: Register::new(issued), revoked: Register::new(false) }
    }
}

impl<T: Copy + PartialEq + fmt::Display> Register<T> {
    fn new(value: T) -> Self {
        Self(vec![Held { value, from: At::ZERO, until: NEVER }])
    }

    /// A write that was not acknowledged may have happened, or not.
    fn write(&mut self, value: T, write: &Write) {
        if write.acknowledged {
            self.end(write.ended);
        }
        self.0.push(Held { value, from: write.began, until: NEVER });
    }

    /// What the copy may have: whatever may have stood when it was made. It may stand from the crash on, and stands from the
    /// return on.
    fn restore(&mut self, Restored { copied, crashed, up }: &Restored) {
        let copied: Vec<T> =
            self.0.iter().filter(|held| held.from <= *copied && *copied <= held.until).map(|held| held.value).collect();
        self.end(*up);
        self.0.extend(copied.into_iter().map(|value| Held { value, from: *crashed, until: NEVER }));
    }

    fn end(&mut self, at: At) {
        self.0.iter_mut().for_each(|held| held.until = held.until.min(at));
    }

    fn allows(&self, value: T, since: At, before: At) -> bool {
        self.0.iter().any(|held| held.value == value && held.from < before && held.until > since)
    }

    fn describe(&self, since: At, before: At) -> String {
        let held = self.0.iter().filter(|held| held.from < before && held.until > since);
        let held: Vec<String> = held.map(|held| format!("{} from {}", held.value, At3(held.from))).collect();
        held.join(" or ")
    }
}
