package udpsock

import (
	"cmp"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Poller reports which of many sockets are readable, so that one goroutine serves
// them all: an idle socket costs no goroutine, and datagrams that arrive on many at
// once are one wake-up. Add and Close may be called from any goroutine, Wait from
// one.
type Poller struct {
	fd     int // An epoll instance, which the runtime watches as it does a socket.
	file   *os.File
	raw    syscall.RawConn
	calls  readCalls
	events [64]unix.EpollEvent
	found  int
	err    error
	try    func(fd uintptr) bool // Made once, as that of Conn.
}

// NewPoller returns a Poller without sockets.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a poller: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // Else the runtime would not watch it.
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make a poller: %w", err)
	}
	p := &Poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	p.try = p.poll
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("make a poller: %w", err)
	}
	return p, nil
}

// Close closes the poller, not its sockets. Wait returns an error.
func (p *Poller) Close() { _ = p.file.Close() }

// Add has Wait report a socket by a number. Closing the socket removes it; Wait may
// return its number once more.
func (p *Poller) Add(c *Conn, number uint64) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(uint32(number)), Pad: int32(uint32(number >> 32))}
	var pollerErr, addErr error
	err := c.system.raw.Control(func(socket uintptr) {
		pollerErr = p.raw.Control(func(fd uintptr) {
			addErr = unix.EpollCtl(int(fd), unix.EPOLL_CTL_ADD, int(socket), &event)
		})
	})
	if err := cmp.Or(err, pollerErr, addErr); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

// Wait waits until sockets are readable or have an error, and appends their numbers
// to numbers. A socket is reported again until it is read empty.
func (p *Poller) Wait(numbers []uint64) ([]uint64, error) {
	if err := p.raw.Read(p.try); err != nil {
		return nil, err
	}
	if p.err != nil {
		return nil, p.err
	}
	for i := range p.events[:p.found] {
		e := &p.events[i]
		numbers = append(numbers, uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32)
	}
	return numbers, nil
}

func (p *Poller) poll(fd uintptr) bool {
	n, errno := p.calls.poll(fd, p.events[:])
	p.found, p.err = n, nil
	if errno != 0 {
		p.found, p.err = 0, os.NewSyscallError("epoll_pwait", errno)
	}
	return n != 0 || errno != 0
}
