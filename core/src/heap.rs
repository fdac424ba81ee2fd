//! What the heap does with memory that is free again.
//!
//! Why: bytes on their way through a node are in buffers of up to a few hundred KiB that come and go with every batch. glibc
//! hands the pages of such to the system when they are free, which then clears new ones for the next batch: 65,000 page
//! faults for each GiB that an edge brings in, and an eighth of its time. Other allocators were measured: mimalloc saves as
//! much time and takes twice the memory.

#![expect(unsafe_code, reason = "one call that only the C library has")]

/// Free memory at the end of an arena that is kept, in bytes: a few batches.
const KEPT_BYTES: i32 = 8 << 20;

/// Pieces from this size on, in bytes, come from the system, and go back there when they are free.
const OF_THE_SYSTEM_BYTES: i32 = 4 << 20;

/// Keeps some of the memory that is free for what needs it next; to be called before there are other threads.
pub fn keep_some() {
    #[cfg(target_env = "gnu")]
    {
        let options = [
            (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
            (libc::M_MMAP_THRESHOLD, OF_THE_SYSTEM_BYTES),
        ];
        for (option, value) in options {
            // SAFETY: it takes two numbers and sets a field of the allocator, which no other thread reads at this time. A value
            // that it does not like changes nothing.
            unsafe { libc::mallopt(option, value) };
        }
    }
}
