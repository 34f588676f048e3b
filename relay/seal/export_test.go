package seal

// WithSuite returns k as a TLS connection with another cipher suite exports it.
// crypto/tls does not let a program choose the cipher suite of TLS 1.3.
func WithSuite(k Keys, suite uint16) Keys {
	k.suite = suite
	return k
}

// Skip sets the sequence number of the next packet.
func (s *Sealer) Skip(to uint64) { s.next = to }
