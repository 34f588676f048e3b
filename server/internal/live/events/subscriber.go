package events

import (
	"net/http"
	"sync"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// subscriber is a stream.
type subscriber struct {
	request   *http.Request
	principal auth.Principal
	after     string // The position of the last event that it has; "" starts now.

	// Guarded by Hub.mu.
	admitted bool // It has its place in the log.
	view     view
	kinds    kinds

	wake  chan struct{} // Has a value if the queue has something.
	ended chan struct{}

	mu       sync.Mutex
	closed   bool
	greeting []byte   // The first event; nil once it is taken.
	queue    [][]byte // Frames, which are shared.
	size     int      // Bytes in the queue.
	expected int      // Frames that may be in the queue beyond the bounds, because they were missed.
}

func newSubscriber(r *http.Request, p auth.Principal, after string, wanted kinds) *subscriber {
	return &subscriber{
		request: r, principal: p, after: after, kinds: wanted,
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

// end ends the stream. What is in its queue is not sent.
func (s *subscriber) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.ended)
	}
}

// start sets the first event, and what the subscriber has missed, which may be more than a queue otherwise holds.
func (s *subscriber) start(greeting []byte, missed [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeting, s.queue, s.expected = greeting, missed, len(missed)
	s.signal()
}

// push adds a frame to the queue. It reports false if the queue is full.
func (s *subscriber) push(frame []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxQueue+s.expected || s.expected == 0 && s.size+len(frame) > maxQueueBytes {
		return false
	}
	s.queue = append(s.queue, frame)
	s.size += len(frame)
	s.signal()
	return true
}

// replace drops the queue, and puts a frame in its place.
func (s *subscriber) replace(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue, s.size, s.expected = [][]byte{frame}, len(frame), 0
	s.signal()
}

// take empties the queue.
func (s *subscriber) take() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames := s.queue
	if s.greeting != nil {
		frames = append([][]byte{s.greeting}, frames...)
	}
	s.greeting, s.queue, s.size, s.expected = nil, nil, 0, 0
	return frames
}

// signal wakes the writer. s.mu is held.
func (s *subscriber) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
