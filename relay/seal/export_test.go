package seal

// WithSuite is k as a TLS connection with another cipher suite would have made it;
// crypto/tls lets nobody choose one of TLS 1.3.
func WithSuite(k Keys, suite uint16) Keys {
	k.suite = suite
	return k
}

// Skip has a Sealer go on with a later sequence number.
func (s *Sealer) Skip(to uint64) { s.next = to }
