//! All interleavings of two or three CPUs at the lock-free places; and that each test notices a weaker ordering.

use std::panic::catch_unwind;

use armv7::addr::Mfn;
use interleavings::id::DomId;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use loom::thread;

/// A page that one CPU writes and another one reads: loom reports it where nothing orders the two.
struct Page(UnsafeCell<u32>);

// SAFETY: loom checks each access.
unsafe impl Sync for Page {}

impl Page {
    fn new() -> Self {
        Page(UnsafeCell::new(0))
    }
    fn read(&self) -> u32 {
        // SAFETY: loom fails the test where another thread may write.
        self.0.with(|value| unsafe { *value })
    }
    fn write(&self, value: u32) {
        // SAFETY: as above.
        self.0.with_mut(|place| unsafe { *place = value });
    }
}

fn notices(model: impl Fn() + Sync + Send + std::panic::UnwindSafe + 'static) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = catch_unwind(|| loom::model(model));
    std::panic::set_hook(hook);
    assert!(result.is_err(), "a weaker ordering went unnoticed");
}

const OWNER: DomId = DomId(1);

/// Two hold a page; the last one who lets go has it for itself.
macro_rules! a_page_is_let_go {
    ($frames:ident) => {
        || {
            use interleavings::$frames::{FrameEntry, FrameTable, Kind};
            let mfn = Mfn::new(0x100).unwrap();
            let entries: &'static [FrameEntry] = Vec::leak(vec![FrameEntry::new()]);
            let table = FrameTable::new(entries, mfn);
            table.make_live(mfn, Kind::Ram, OWNER, 2);
            let page = Arc::new(Page::new());
            let lets_go = move |page: &Page| {
                page.read();
                if table.put(mfn).is_some() {
                    page.write(1);
                }
            };
            let other = page.clone();
            let thread = thread::spawn(move || lets_go(&other));
            lets_go(&page);
            thread.join().unwrap();
        }
    };
}

/// A page is scrubbed and given to a domain; whoever gets a reference finds it scrubbed.
macro_rules! a_page_becomes_live {
    ($frames:ident) => {
        || {
            use interleavings::$frames::{FrameEntry, FrameTable, Kind};
            let mfn = Mfn::new(0x100).unwrap();
            let entries: &'static [FrameEntry] = Vec::leak(vec![FrameEntry::new()]);
            let table = FrameTable::new(entries, mfn);
            let page = Arc::new(Page::new());
            let other = page.clone();
            let thread = thread::spawn(move || {
                if table.get(mfn, OWNER).is_some() {
                    assert_eq!(other.read(), 1);
                }
            });
            page.write(1);
            table.make_live(mfn, Kind::Ram, OWNER, 1);
            thread.join().unwrap();
        }
    };
}

#[test]
fn a_page_is_reused_after_its_last_use() {
    loom::model(a_page_is_let_go!(frame));
    notices(a_page_is_let_go!(frame_put_without_release));
    notices(a_page_is_let_go!(frame_put_without_acquire));
}

#[test]
fn a_page_is_scrubbed_before_its_first_use() {
    loom::model(a_page_becomes_live!(frame));
    notices(a_page_becomes_live!(frame_live_without_release));
    notices(a_page_becomes_live!(frame_get_without_acquire));
}

const PENDING: u32 = 1 << 31;

/// Two send the same event after something else; a guest that takes it once, with both in, sees what both did before.
macro_rules! an_event_is_sent_twice {
    ($words:ident) => {
        || {
            use interleavings::$words::set;
            let word = Arc::new(AtomicU32::new(0));
            let pages = Arc::new([Page::new(), Page::new()]);
            let sent = Arc::new(AtomicU32::new(0));
            let (second, its_pages, count) = (word.clone(), pages.clone(), sent.clone());
            let thread = thread::spawn(move || {
                its_pages[1].write(1);
                set(&second, PENDING | 2).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            });
            pages[0].write(1);
            let was = set(&word, PENDING | 1).unwrap();
            // The guest, on this CPU's next turn or on another one's.
            let taken = word.swap(0, Ordering::AcqRel);
            if taken & 2 != 0 {
                assert_eq!(pages[1].read(), 1);
            }
            assert!(taken & 1 != 0 && was & 1 == 0);
            thread.join().unwrap();
        }
    };
}

/// An event that is pending is sent again: the sender that found it pending relies on whoever takes it afterwards to see
/// what it did before.
macro_rules! an_event_is_sent_again {
    ($words:ident) => {
        || {
            use interleavings::$words::set;
            let word = Arc::new(AtomicU32::new(PENDING));
            let data = Arc::new(AtomicU32::new(0));
            let (senders, its_data) = (word.clone(), data.clone());
            let thread = thread::spawn(move || {
                its_data.store(1, Ordering::Relaxed);
                set(&senders, PENDING).unwrap()
            });
            let taken = word.swap(0, Ordering::AcqRel);
            let seen = data.load(Ordering::Relaxed);
            assert!(taken & PENDING != 0);
            let was = thread.join().unwrap();
            assert!(was & PENDING == 0 || seen == 1);
        }
    };
}

#[test]
fn whoever_takes_an_event_sees_what_was_done_before_it() {
    loom::model(an_event_is_sent_twice!(word));
    notices(an_event_is_sent_twice!(word_update_relaxed));
}

#[test]
fn an_event_that_was_pending_is_stored_all_the_same() {
    loom::model(an_event_is_sent_again!(word));
    notices(an_event_is_sent_again!(word_update_that_stores_nothing_new));
    notices(an_event_is_sent_again!(word_update_relaxed));
}

/// A new event is linked behind the tail: who follows the link finds the word behind it.
macro_rules! a_link_is_followed {
    ($words:ident) => {
        || {
            use interleavings::$words::replace;
            const LINKED: u32 = 1 << 29;
            let tail = Arc::new(AtomicU32::new(LINKED));
            let page = Arc::new(Page::new());
            let (sender, its_page) = (tail.clone(), page.clone());
            let thread = thread::spawn(move || {
                its_page.write(1);
                // Loom's weak exchange may fail for no reason, as often as it likes.
                replace(&sender, LINKED, LINKED | 7).is_ok()
            });
            if tail.swap(0, Ordering::AcqRel) & 7 != 0 {
                assert_eq!(page.read(), 1);
            }
            thread.join().unwrap();
        }
    };
}

/// The upcall's byte is set after the event: who takes the byte finds the event.
macro_rules! an_upcall_is_taken {
    ($words:ident) => {
        || {
            use interleavings::$words::raise;
            let byte = Arc::new(AtomicU8::new(0));
            let page = Arc::new(Page::new());
            let (sender, its_page) = (byte.clone(), page.clone());
            let thread = thread::spawn(move || {
                its_page.write(1);
                raise(&sender).unwrap();
            });
            if byte.swap(0, Ordering::AcqRel) != 0 {
                assert_eq!(page.read(), 1);
            }
            thread.join().unwrap();
        }
    };
}

#[test]
fn whoever_follows_a_link_finds_an_event() {
    loom::model(a_link_is_followed!(word));
    notices(a_link_is_followed!(word_replace_relaxed));
}

#[test]
fn whoever_takes_an_upcall_finds_an_event() {
    loom::model(an_upcall_is_taken!(word));
    notices(an_upcall_is_taken!(word_raise_relaxed));
}

const GRANTED: u32 = 2 << 16 | 1;

/// A granter fills the page and grants it: who marks the entry finds the page filled.
macro_rules! a_grant_is_made {
    ($entries:ident) => {
        || {
            use interleavings::$entries::{Check, Entry};
            let word = Arc::new(AtomicU32::new(0));
            let page = Arc::new(Page::new());
            let (granters, its_page) = (word.clone(), page.clone());
            let thread = thread::spawn(move || {
                its_page.write(7);
                granters.store(GRANTED, Ordering::Release);
            });
            let (flags, frame) = (AtomicU16::new(0), AtomicU32::new(0));
            let entry = Entry { word: &word, flags: &flags, frame: &frame };
            let check = Check::GrantedTo(DomId(2));
            if entry.mark(check, interleavings::entry_types::Access::Write).is_ok() {
                assert_eq!(page.read(), 7);
            }
            thread.join().unwrap();
        }
    };
}

/// A mapper writes and ends its use: a granter who takes the grant back finds what was written.
macro_rules! a_grant_ends {
    ($entries:ident) => {
        || {
            use interleavings::$entries::{Cleared, Entry};
            const MARKS: u16 = 8 | 16;
            let flags = Arc::new(AtomicU16::new(1 | MARKS));
            let page = Arc::new(Page::new());
            let (mappers, its_page) = (flags.clone(), page.clone());
            let thread = thread::spawn(move || {
                let (word, frame) = (AtomicU32::new(0), AtomicU32::new(0));
                its_page.write(1);
                let entry = Entry { word: &word, flags: &mappers, frame: &frame };
                assert!(entry.clear(MARKS) == Cleared::Yes);
            });
            if flags.compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                page.write(2);
            }
            thread.join().unwrap();
        }
    };
}

#[test]
fn whoever_marks_a_grant_finds_its_page() {
    loom::model(a_grant_is_made!(entry));
    notices(a_grant_is_made!(entry_mark_relaxed));
}

#[test]
fn a_granter_gets_its_page_back_after_the_last_use() {
    loom::model(a_grant_ends!(entry));
    notices(a_grant_ends!(entry_clear_relaxed));
}
