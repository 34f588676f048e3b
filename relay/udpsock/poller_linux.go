package udpsock

import (
	"cmp"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Poller tells which of many sockets have something to read, so that one
// goroutine serves them: a silent one costs none, and what comes to many at once
// is one wake-up. Add and Close may be called from any goroutine, Wait from one.
type Poller struct {
	fd     int // An epoll instance, which the runtime watches as it does a socket.
	file   *os.File
	raw    syscall.RawConn
	reads  Reads
	events [64]unix.EpollEvent
	found  int
	err    error
	try    func(fd uintptr) bool // Made once, as that of Conn.
}

// NewPoller makes a Poller of no sockets.
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

// Close ends Wait.
func (p *Poller) Close() { _ = p.file.Close() }

// Add has Wait tell of a socket by a number. Closing the socket takes it away;
// its number may come once more.
func (p *Poller) Add(c *Conn, number uint64) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(uint32(number)), Pad: int32(uint32(number >> 32))}
	var pollerErr, addErr error
	err := c.raw.Control(func(socket uintptr) {
		pollerErr = p.raw.Control(func(fd uintptr) {
			addErr = unix.EpollCtl(int(fd), unix.EPOLL_CTL_ADD, int(socket), &event)
		})
	})
	if err := cmp.Or(err, pollerErr, addErr); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

// Wait waits until there is something to read, or an error, and puts the numbers
// of the sockets into numbers. As long as it is not read it is told of again.
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
	n, errno := p.reads.poll(fd, p.events[:])
	p.found, p.err = n, nil
	if errno != 0 {
		p.found, p.err = 0, os.NewSyscallError("epoll_pwait", errno)
	}
	return n != 0 || errno != 0
}
