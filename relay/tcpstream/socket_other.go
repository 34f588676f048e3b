//go:build !unix

package tcpstream

// canPoll says that a Socket can be read without waiting.
const canPoll = false

// tryRead finds nothing: here the system cannot tell what is there.
func (s *Socket) tryRead(uintptr) bool {
	s.n, s.err = 0, errWouldBlock
	return true
}
