//! Where bytes go first: one buffer a thread, so that connections that wait hold none.

use std::cell::RefCell;

/// As much as one read brings. A head or a small body fits many times over.
const SIZE: usize = 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
}

/// Lends the thread's buffer. Not to be nested.
pub(crate) fn with<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| use_it(scratch))
}
