//! A digest of a run: two runs of the same plan must give the same one.

use windlass_core::process_store::Write;
use windlass_fakes::decision::mix;
use windlass_fakes::faulty::About;

use super::super::event::{Event, What};

/// A digest of everything that happened, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

fn about(about: About) -> u64 {
    let id = match about {
        About::Nothing => return 0,
        About::Attempt(id) => id.0,
        About::Execution(id) => id.0,
        About::Record(id) => id,
    };
    let (high, low) = id.as_u64_pair();
    mix(high, low)
}

/// Makes a number of a long text.
fn long(text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let all = words.iter().fold(text.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(all, |sum, byte| mix(sum, u64::from(*byte)))
}

impl Digest {
    /// Adds an event.
    pub(super) fn take(&mut self, event: &Event) {
        self.add(event.at.0);
        match &event.what {
            What::Called { life, call, fault, .. } => {
                self.add(1 | u64::from(life.0) << 8 | (call.site as u64) << 32);
                self.add(about(call.about));
                self.add(u64::from(*fault != windlass_fakes::faulty::Fault::None));
            }
            What::Returned { life, number, call, told } => {
                self.add(2 | u64::from(life.0) << 8 | (call.site as u64) << 32);
                self.add(number.0 << 8 | *told as u64);
            }
            What::Performed { life, number, .. } => {
                self.add(3 | u64::from(life.0) << 8 | number.0 << 32);
            }
            What::Committed { life, number, writes, .. } => {
                self.add(4 | u64::from(life.0) << 8 | number.0 << 32);
                for write in writes.iter() {
                    self.add(match write {
                        Write::Put { record, .. } => long(&record.body),
                        Write::Delete { key, .. } => about(About::Record(key.id)),
                    });
                }
            }
            What::Acquired { life, lease } => {
                self.add(5 | u64::from(life.0) << 8 | lease.epoch.0 << 32);
            }
            What::Happened(happened) => {
                self.add(6);
                self.happened(happened);
            }
            What::Asked { ask, life, .. } => {
                self.add(7 | u64::from(life.0) << 8 | u64::from(ask.0) << 32);
            }
            What::Answered { ask, answer, .. } => {
                self.add(8 | u64::from(answer.is_promise()) << 8 | u64::from(ask.0) << 32);
            }
            What::Read { page, .. } => self.add(9 | page.next.0 << 8),
            What::HostComes { life } => self.add(10 | u64::from(life.0) << 8),
            What::HostServes { life, epoch } => {
                self.add(11 | u64::from(life.0) << 8 | epoch.0 << 32);
            }
            What::HostGone { life, why } => {
                self.add(12 | u64::from(life.0) << 8 | (*why as u64) << 40);
            }
            What::HostSays { life, running, queued } => {
                self.add(13 | u64::from(life.0) << 8 | u64::from(*running) << 24);
                self.add(u64::from(*queued));
            }
            What::Healed => self.add(14),
            What::Settled => self.add(15),
        }
    }

    fn happened(&mut self, happened: &windlass_fakes::Happened) {
        use windlass_fakes::Happened as H;
        match happened {
            H::Started { process, .. } => self.add(1 | u64::from(process.pid) << 8),
            H::Exited { process, .. } => self.add(2 | u64::from(process.pid) << 8),
            H::Signalled { process, signal, .. } => {
                self.add(3 | u64::from(process.pid) << 8 | u64::from(*signal) << 48);
            }
            H::Wrote { bytes, .. } => {
                self.add(4 | (bytes.len() as u64) << 8);
            }
            H::Recorded { .. } => self.add(5),
            H::ShimStarted { .. }
            | H::NotStarted { .. }
            | H::Forked { .. }
            | H::FileWritten { .. }
            | H::PidReused { .. }
            | H::LogSynced { .. }
            | H::PlaceRemoved { .. }
            | H::ShimGone { .. }
            | H::StrangerStarted { .. }
            | H::PowerLost { .. }
            | H::DirectoryMade { .. }
            | H::DirectoryRenamed { .. }
            | H::DirectoryRemoved { .. } => self.add(6),
        }
    }

    fn add(&mut self, number: u64) {
        self.0 = mix(self.0, number);
    }

    /// Returns it as a number.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}
