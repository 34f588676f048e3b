//go:build !unix

package tcpstream

// polls reports whether a Socket can be read without waiting.
const polls = false

// tryRead finds nothing: here the system cannot be asked what is there.
func (s *Socket) tryRead(uintptr) bool {
	s.n, s.err = 0, errNothing
	return true
}
