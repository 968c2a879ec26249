//! The system's calls that change files, defined here, so that the whole program calls these: they pass the call on and
//! tell the recorder.
//!
//! A program that has this module is recorded when it asks for it; else it is as it was. Calls that are made without the C
//! library pass by: what they opened is recognised with the next call that does not, and room that they reserve changes
//! no content.
#![expect(
    unsafe_code,
    reason = "to take the place of a function of the C library is to define it, and to pass it on is to call the kernel"
)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};
use windlass_tests::images::recorder;

type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;

/// The C library's `syscall`, once it was looked up.
static SYSCALL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Calls the kernel, past everything that is defined here. An error is in `errno`, as always.
fn kernel(number: c_long, arguments: [usize; 6]) -> c_long {
    let mut found = SYSCALL.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: a name that ends with a zero.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
        SYSCALL.store(found, Ordering::Relaxed);
    }
    // SAFETY: the C library has a function of this name and type.
    let syscall = unsafe { std::mem::transmute::<*mut c_void, Syscall>(found) };
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: whoever called us gave these arguments for this call.
    unsafe { syscall(number, a, b, c, d, e, f) }
}

fn path<'a>(text: *const c_char) -> &'a Path {
    // SAFETY: every call with a path takes a string that ends with a zero and outlives the call.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

fn bytes<'a>(start: *const c_void, len: size_t) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: every call that writes takes so many bytes that outlive the call.
    unsafe { std::slice::from_raw_parts(start.cast(), len) }
}

fn descriptor(fd: c_int) -> usize {
    // The kernel takes the low half of the register.
    fd.cast_unsigned() as usize
}

/// Returns what a register holds of a number.
fn register(number: i64) -> usize {
    usize::try_from(number.cast_unsigned()).unwrap_or(usize::MAX)
}

fn directory(fd: c_int) -> Option<i32> {
    (fd != libc::AT_FDCWD).then_some(fd)
}

fn int(result: c_long) -> c_int {
    c_int::try_from(result).unwrap_or(-1)
}

fn size(result: c_long) -> ssize_t {
    ssize_t::try_from(result).unwrap_or(-1)
}

/// Writes at an offset; without one, where the file's position is.
fn written(
    fd: c_int,
    data: &[u8],
    offset: Option<off_t>,
    number: c_long,
    rest: [usize; 3],
) -> ssize_t {
    recorder::said(fd, data);
    let call = recorder::call(fd);
    let [start, len, at] = rest;
    let result = kernel(number, [descriptor(fd), start, len, at, 0, 0]);
    let (Some(call), Ok(count @ 1..)) = (call, usize::try_from(result)) else {
        return size(result);
    };
    let offset = match offset {
        Some(offset) => offset,
        None => {
            let whence = usize::try_from(libc::SEEK_CUR).unwrap_or(1);
            kernel(libc::SYS_lseek, [descriptor(fd), 0, whence, 0, 0, 0]) - result
        }
    };
    call.wrote(u64::try_from(offset).unwrap_or(0), &data[..count]);
    size(result)
}

fn joined(slices: *const iovec, count: c_int) -> Vec<u8> {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: calls with slices take an array of so many of them.
    let slices = unsafe { std::slice::from_raw_parts(slices, count) };
    slices.iter().flat_map(|slice| bytes(slice.iov_base, slice.iov_len)).copied().collect()
}

#[unsafe(no_mangle)]
extern "C" fn write(fd: c_int, start: *const c_void, len: size_t) -> ssize_t {
    written(fd, bytes(start, len), None, libc::SYS_write, [start.addr(), len, 0])
}

#[unsafe(no_mangle)]
extern "C" fn pwrite(fd: c_int, start: *const c_void, len: size_t, at: off_t) -> ssize_t {
    let place = register(at);
    written(fd, bytes(start, len), Some(at), libc::SYS_pwrite64, [start.addr(), len, place])
}

#[unsafe(no_mangle)]
extern "C" fn pwrite64(fd: c_int, start: *const c_void, len: size_t, at: off_t) -> ssize_t {
    pwrite(fd, start, len, at)
}

#[unsafe(no_mangle)]
extern "C" fn writev(fd: c_int, slices: *const iovec, count: c_int) -> ssize_t {
    let data = joined(slices, count);
    written(fd, &data, None, libc::SYS_writev, [slices.addr(), descriptor(count), 0])
}

#[unsafe(no_mangle)]
extern "C" fn pwritev(fd: c_int, slices: *const iovec, count: c_int, at: off_t) -> ssize_t {
    let (data, place) = (joined(slices, count), register(at));
    written(fd, &data, Some(at), libc::SYS_pwritev, [slices.addr(), descriptor(count), place])
}

#[unsafe(no_mangle)]
extern "C" fn pwritev64(fd: c_int, slices: *const iovec, count: c_int, at: off_t) -> ssize_t {
    pwritev(fd, slices, count, at)
}

#[unsafe(no_mangle)]
extern "C" fn send(fd: c_int, start: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    recorder::said(fd, bytes(start, len));
    let arguments = [descriptor(fd), start.addr(), len, descriptor(flags), 0, 0];
    size(kernel(libc::SYS_sendto, arguments))
}

/// Not here: who copies that way can also do it by reading and writing, which is seen.
#[unsafe(no_mangle)]
extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    if recorder::call(to).is_some() {
        return unsupported();
    }
    let arguments =
        [descriptor(from), from_at.addr(), descriptor(to), to_at.addr(), len, flags as usize];
    size(kernel(libc::SYS_copy_file_range, arguments))
}

/// The same.
#[unsafe(no_mangle)]
extern "C" fn sendfile(to: c_int, from: c_int, at: *mut off_t, len: size_t) -> ssize_t {
    if recorder::call(to).is_some() {
        return unsupported();
    }
    let arguments = [descriptor(to), descriptor(from), at.addr(), len, 0, 0];
    size(kernel(libc::SYS_sendfile, arguments))
}

#[unsafe(no_mangle)]
extern "C" fn sendfile64(to: c_int, from: c_int, at: *mut off_t, len: size_t) -> ssize_t {
    sendfile(to, from, at, len)
}

fn unsupported() -> ssize_t {
    // SAFETY: the address of this thread's `errno`.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// A recorded file that is written through memory is not recorded: it has to be left out by its name.
#[unsafe(no_mangle)]
extern "C" fn mmap(
    start: *mut c_void,
    len: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    at: off_t,
) -> *mut c_void {
    let writes = protection & libc::PROT_WRITE != 0 && flags & libc::MAP_SHARED != 0;
    if writes && fd >= 0 && recorder::call(fd).is_some() {
        unsupported();
        return libc::MAP_FAILED;
    }
    let (protection, flags) = (descriptor(protection), descriptor(flags));
    let place = register(at);
    let mapped =
        kernel(libc::SYS_mmap, [start.addr(), len, protection, flags, descriptor(fd), place]);
    std::ptr::with_exposed_provenance_mut(register(mapped))
}

#[unsafe(no_mangle)]
extern "C" fn mmap64(
    start: *mut c_void,
    len: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    at: off_t,
) -> *mut c_void {
    mmap(start, len, protection, flags, fd, at)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    let call = recorder::call(fd);
    let place = register(len);
    let result = kernel(libc::SYS_ftruncate, [descriptor(fd), place, 0, 0, 0, 0]);
    if let (Some(call), 0) = (call, result) {
        call.resized(u64::try_from(len).unwrap_or(0));
    }
    int(result)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    ftruncate(fd, len)
}

fn synced(fd: c_int, number: c_long) -> c_int {
    let call = recorder::call(fd);
    let result = kernel(number, [descriptor(fd), 0, 0, 0, 0, 0]);
    if let (Some(call), 0) = (call, result) {
        call.synced();
    }
    int(result)
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, libc::SYS_fdatasync)
}

/// Promises nothing: neither the disk's cache nor the file's metadata are flushed.
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(fd: c_int, at: off_t, len: off_t, flags: c_uint) -> c_int {
    let (at, len) = (register(at), register(len));
    int(kernel(libc::SYS_sync_file_range, [descriptor(fd), at, len, flags as usize, 0, 0]))
}

#[unsafe(no_mangle)]
extern "C" fn openat(at: c_int, text: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let call = recorder::name_call(directory(at), path(text));
    let arguments = [descriptor(at), text.addr(), descriptor(flags), mode as usize, 0, 0];
    let fd = int(kernel(libc::SYS_openat, arguments));
    if fd >= 0 {
        match call {
            Some(call) => {
                call.opened(fd, flags & libc::O_CREAT != 0, flags & libc::O_TRUNC != 0);
            }
            None => recorder::closed(fd),
        }
    }
    fd
}

#[unsafe(no_mangle)]
extern "C" fn openat64(at: c_int, text: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    openat(at, text, flags, mode)
}

#[unsafe(no_mangle)]
extern "C" fn open(text: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    openat(libc::AT_FDCWD, text, flags, mode)
}

#[unsafe(no_mangle)]
extern "C" fn open64(text: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    openat(libc::AT_FDCWD, text, flags, mode)
}

#[unsafe(no_mangle)]
extern "C" fn close(fd: c_int) -> c_int {
    // Before, for the number may be another thread's the moment it is free.
    recorder::closed(fd);
    int(kernel(libc::SYS_close, [descriptor(fd), 0, 0, 0, 0, 0]))
}

#[unsafe(no_mangle)]
extern "C" fn dup2(from: c_int, to: c_int) -> c_int {
    if from != to {
        recorder::closed(to);
        return int(kernel(libc::SYS_dup3, [descriptor(from), descriptor(to), 0, 0, 0, 0]));
    }
    let get = usize::try_from(libc::F_GETFD).unwrap_or(1);
    let open = kernel(libc::SYS_fcntl, [descriptor(from), get, 0, 0, 0, 0]);
    if open < 0 { -1 } else { to }
}

#[unsafe(no_mangle)]
extern "C" fn unlinkat(at: c_int, text: *const c_char, flags: c_int) -> c_int {
    let call = recorder::name_call(directory(at), path(text));
    let arguments = [descriptor(at), text.addr(), descriptor(flags), 0, 0, 0];
    let result = kernel(libc::SYS_unlinkat, arguments);
    if let (Some(call), 0) = (call, result) {
        call.unnamed();
    }
    int(result)
}

#[unsafe(no_mangle)]
extern "C" fn unlink(text: *const c_char) -> c_int {
    unlinkat(libc::AT_FDCWD, text, 0)
}

#[unsafe(no_mangle)]
extern "C" fn rmdir(text: *const c_char) -> c_int {
    unlinkat(libc::AT_FDCWD, text, libc::AT_REMOVEDIR)
}

#[unsafe(no_mangle)]
extern "C" fn renameat2(
    from_at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    let call = recorder::names_call((directory(from_at), path(from)), (directory(to_at), path(to)));
    let arguments =
        [descriptor(from_at), from.addr(), descriptor(to_at), to.addr(), flags as usize, 0];
    let result = kernel(libc::SYS_renameat2, arguments);
    if let (Some(call), 0) = (call, result) {
        call.renamed();
    }
    int(result)
}

#[unsafe(no_mangle)]
extern "C" fn renameat(
    from_at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
) -> c_int {
    renameat2(from_at, from, to_at, to, 0)
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    renameat2(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0)
}

#[unsafe(no_mangle)]
extern "C" fn linkat(
    from_at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    let call = recorder::names_call((directory(from_at), path(from)), (directory(to_at), path(to)));
    let arguments =
        [descriptor(from_at), from.addr(), descriptor(to_at), to.addr(), descriptor(flags), 0];
    let result = kernel(libc::SYS_linkat, arguments);
    if let (Some(call), 0) = (call, result) {
        call.linked();
    }
    int(result)
}

#[unsafe(no_mangle)]
extern "C" fn link(from: *const c_char, to: *const c_char) -> c_int {
    linkat(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0)
}

#[unsafe(no_mangle)]
extern "C" fn mkdirat(at: c_int, text: *const c_char, mode: mode_t) -> c_int {
    let call = recorder::name_call(directory(at), path(text));
    let arguments = [descriptor(at), text.addr(), mode as usize, 0, 0, 0];
    let result = kernel(libc::SYS_mkdirat, arguments);
    if let (Some(call), 0) = (call, result) {
        call.made();
    }
    int(result)
}

#[unsafe(no_mangle)]
extern "C" fn mkdir(text: *const c_char, mode: mode_t) -> c_int {
    mkdirat(libc::AT_FDCWD, text, mode)
}

/// The kernel's `struct iocb`, as far as it is of interest.
#[repr(C)]
struct Iocb {
    data: u64,
    key_and_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    fd: u32,
}

/// Calls by number: syncs may be queued in the kernel this way, and descriptors closed.
#[unsafe(no_mangle)]
extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    match number {
        libc::SYS_io_submit => submitted(b, c),
        libc::SYS_close_range => recorder::closed_range(a, b),
        libc::SYS_fsync | libc::SYS_fdatasync => {
            return c_long::from(synced(c_int::try_from(a).unwrap_or(-1), number));
        }
        _ => {}
    }
    let result = kernel(number, [a, b, c, d, e, f]);
    if let (libc::SYS_io_getevents, Ok(count @ 1..)) = (number, usize::try_from(result)) {
        recorder::ended(count);
    }
    result
}

fn submitted(count: usize, requests: usize) {
    const SYNCS: [u16; 2] = [2, 3];
    let requests: *const *const Iocb = std::ptr::with_exposed_provenance(requests);
    for index in 0..count {
        // SAFETY: the call takes an array of so many requests.
        let request = unsafe { &**requests.add(index) };
        if SYNCS.contains(&request.opcode)
            && let Some(call) = recorder::call(c_int::try_from(request.fd).unwrap_or(-1))
        {
            call.queued();
        }
    }
}
