package udpsock

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls here never wait, and of those that are short the runtime is
// not told. It is told of a call so that others can run should that take long, and
// where all had been idle it wakes its monitor thread for it: one more system call
// and two switches of threads, at each place that a lone datagram passes.

const (
	// briefPieces is how many pieces of memory a short call sends at most.
	briefPieces = 8
	// untoldReads is how many reads follow each other at most of which the
	// runtime is not told. The monitor also interrupts a goroutine that never
	// finds its socket empty, so it must not sleep while one goes on and on.
	untoldReads = 31
)

// Message is the kernel's struct mmsghdr, see recvmmsg(2).
type Message struct {
	Header unix.Msghdr
	Length uint32
}

// Reads makes the reading system calls of one goroutine. The zero value is ready.
type Reads struct{ untold int }

// Receive reads as many messages as are there, and have room, and returns how
// many those are. An error is EAGAIN where there is none.
func (r *Reads) Receive(fd uintptr, messages []Message) (int, syscall.Errno) {
	return call(r.tell(), unix.SYS_RECVMMSG, fd, unsafe.Pointer(&messages[0]), len(messages), unix.MSG_DONTWAIT)
}

// poll asks an epoll instance what there is.
func (r *Reads) poll(fd uintptr, events []unix.EpollEvent) (int, syscall.Errno) {
	return call(r.tell(), unix.SYS_EPOLL_PWAIT, fd, unsafe.Pointer(&events[0]), len(events), 0)
}

// tell reports whether the runtime is to be told of the next call.
func (r *Reads) tell() bool {
	if r.untold++; r.untold <= untoldReads {
		return false
	}
	r.untold = 0
	return true
}

// SendMessages sends messages until there is no room for one or one fails, and
// returns how many it has sent. Why that one was not sent is said when it is the
// first, of no room with EAGAIN.
func SendMessages(fd uintptr, messages []Message) (int, syscall.Errno) {
	tell, pieces := false, 0
	for i := range messages {
		if pieces += int(messages[i].Header.Iovlen); pieces > briefPieces {
			tell = true
			break
		}
	}
	return call(tell, unix.SYS_SENDMMSG, fd, unsafe.Pointer(&messages[0]), len(messages), unix.MSG_DONTWAIT)
}

// call makes a system call about n pieces of memory.
func call(tell bool, number, fd uintptr, memory unsafe.Pointer, n int, flags uintptr) (int, syscall.Errno) {
	for {
		var done uintptr
		var errno syscall.Errno
		if tell {
			done, _, errno = unix.Syscall6(number, fd, uintptr(memory), uintptr(n), flags, 0, 0)
		} else {
			done, _, errno = unix.RawSyscall6(number, fd, uintptr(memory), uintptr(n), flags, 0, 0)
		}
		if errno != unix.EINTR {
			return int(done), errno
		}
	}
}
