package tcpstream

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// pipesAtMost bounds the pipes of the program: each is two open files and,
	// while whoever it leads to does not read, memory of the kernel's. Streams that
	// find none left are copied.
	pipesAtMost = 32
	// pipesKept is how many are kept for the next who has something to move. Where
	// readers keep up, no more are in use at once than there are CPUs.
	pipesKept = 4
	// pipeSize is how many bytes a pipe is made for. A user has only so much for
	// all pipes (pipe(7), pipe-user-pages-soft), and what is left may be less; but
	// less than pipeLeast is not worth it.
	pipeSize  = 1 << 20
	pipeLeast = 64 << 10
)

// pipe is what the kernel moves bytes through between two sockets.
type pipe struct {
	in, out int
	holds   int // How many bytes are in it.
}

func (p *pipe) close() {
	_ = unix.Close(p.in)
	_ = unix.Close(p.out)
}

// pipes are those of the program.
var pipes pipeStock

type pipeStock struct {
	mu   sync.Mutex
	kept []*pipe // Empty ones.
	lent int
}

// borrow returns an empty pipe, or nil if there is none left.
func (s *pipeStock) borrow() *pipe {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lent == pipesAtMost {
		return nil
	}
	if n := len(s.kept); n > 0 {
		p := s.kept[n-1]
		s.kept = s.kept[:n-1]
		s.lent++
		return p
	}
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil // The program has as many open files as it may.
	}
	p := &pipe{out: ends[0], in: ends[1]}
	n, err := unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		n, err = unix.FcntlInt(uintptr(p.in), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil || n < pipeLeast {
		p.close()
		return nil
	}
	s.lent++
	return p
}

// giveBack takes a pipe back. What is in it is lost.
func (s *pipeStock) giveBack(p *pipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent--
	if p.holds > 0 || len(s.kept) == pipesKept {
		p.close()
		return
	}
	s.kept = append(s.kept, p)
}
