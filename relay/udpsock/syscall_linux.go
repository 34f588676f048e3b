package udpsock

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls here are non-blocking, and the Go runtime is not notified of
// those that are short. Notified, it lets other goroutines run should the call take
// long, and if all had been idle, it wakes its monitor thread for that: one more
// system call and two thread switches, wherever a lone datagram passes.

const (
	// shortVectors is the largest number of memory pieces that a short call sends.
	shortVectors = 8
	// maxUnreported is how many reads in a row the runtime is not notified of. The
	// monitor thread also preempts a goroutine that never finds its socket empty,
	// so it must not sleep on while one runs on.
	maxUnreported = 31
)

// message is the kernel's struct mmsghdr, see recvmmsg(2).
type message struct {
	header unix.Msghdr
	length uint32
}

// readCalls makes the reading system calls of one goroutine. The zero value is
// ready.
type readCalls struct{ unreported int }

// receive reads as many messages as have arrived and fit, and returns their number.
// It fails with EAGAIN if there is none.
func (r *readCalls) receive(fd uintptr, messages []message) (int, syscall.Errno) {
	return call(r.notify(), unix.SYS_RECVMMSG, fd, unsafe.Pointer(&messages[0]), len(messages), unix.MSG_DONTWAIT)
}

// poll reads the events of an epoll instance; there may be none.
func (r *readCalls) poll(fd uintptr, events []unix.EpollEvent) (int, syscall.Errno) {
	return call(r.notify(), unix.SYS_EPOLL_PWAIT, fd, unsafe.Pointer(&events[0]), len(events), 0)
}

// notify reports whether the next call notifies the runtime.
func (r *readCalls) notify() bool {
	if r.unreported++; r.unreported <= maxUnreported {
		return false
	}
	r.unreported = 0
	return true
}

// sendMessages sends messages until one fails, and returns how many it sent. It
// returns an error only if that was the first: EAGAIN if the socket's buffer is
// full.
func sendMessages(fd uintptr, messages []message) (int, syscall.Errno) {
	notify, vectors := false, 0
	for i := range messages {
		if vectors += int(messages[i].header.Iovlen); vectors > shortVectors {
			notify = true
			break
		}
	}
	return call(notify, unix.SYS_SENDMMSG, fd, unsafe.Pointer(&messages[0]), len(messages), unix.MSG_DONTWAIT)
}

// connect connects a socket.
func connect(fd uintptr, to *Endpoint) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to.name)), uintptr(to.length))
	return errno
}

// call makes a system call about n elements of memory.
func call(notify bool, number, fd uintptr, memory unsafe.Pointer, n int, flags uintptr) (int, syscall.Errno) {
	for {
		var done uintptr
		var errno syscall.Errno
		if notify {
			done, _, errno = unix.Syscall6(number, fd, uintptr(memory), uintptr(n), flags, 0, 0)
		} else {
			done, _, errno = unix.RawSyscall6(number, fd, uintptr(memory), uintptr(n), flags, 0, 0)
		}
		if errno != unix.EINTR {
			return int(done), errno
		}
	}
}
