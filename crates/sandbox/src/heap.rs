//! The process's own heap: here, since this is the crate that may call the C library.

/// Gives what the allocator keeps for later back to the system; takes a millisecond for each ten mebibytes or
/// so. Does nothing where the C library is not glibc: others do it by themselves.
pub fn trim() {
    // SAFETY: it takes no pointers, and may be called by any thread at any time (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
