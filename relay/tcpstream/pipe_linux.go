package tcpstream

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// maxPipes bounds the pipes of the process: each takes two file descriptors and,
	// while its reader does not read, kernel memory. A stream that gets none is
	// copied instead.
	maxPipes = 32
	// keptPipes is how many empty pipes are kept for reuse. While readers keep up, no
	// more are in use at once than there are CPUs.
	keptPipes = 4
	// pipeSize is the capacity of a pipe, in bytes. The kernel limits the memory of
	// one user's pipes (pipe(7), pipe-user-pages-soft) and may give less; a pipe
	// below minPipeSize is not worth it.
	pipeSize    = 1 << 20
	minPipeSize = 64 << 10
)

// pipe is a pipe through which the kernel moves bytes between two sockets.
type pipe struct {
	in, out int
	holds   int // Bytes in it.
}

func (p *pipe) close() {
	_ = unix.Close(p.in)
	_ = unix.Close(p.out)
}

// pipes are the pipes of the process.
var pipes pipePool

type pipePool struct {
	mu   sync.Mutex
	kept []*pipe // Empty ones.
	lent int
}

// borrow returns an empty pipe, or nil if there is none left.
func (s *pipePool) borrow() *pipe {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lent == maxPipes {
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
		return nil // The process has no file descriptors left.
	}
	p := &pipe{out: ends[0], in: ends[1]}
	n, err := unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		n, err = unix.FcntlInt(uintptr(p.in), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil || n < minPipeSize {
		p.close()
		return nil
	}
	s.lent++
	return p
}

// release returns a pipe. Bytes in it are lost.
func (s *pipePool) release(p *pipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent--
	if p.holds > 0 || len(s.kept) == keptPipes {
		p.close()
		return
	}
	s.kept = append(s.kept, p)
}
