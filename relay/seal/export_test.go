package seal

// WithSuite returns k as a TLS connection with another cipher suite exports it.
// crypto/tls does not let a program choose the cipher suite of TLS 1.3.
func WithSuite(k Keys, suite uint16) Keys {
	k.suite = suite
	return k
}

// Skip sets the sequence number of the next packet.
func (s *Sealer) Skip(to uint64) {
	s.next = to
	if !s.chain.ratchet {
		s.chain.next = s.Epoch()
	}
}

// Stolen returns an opener of a past epoch, as somebody makes it who has learned what o
// has in its memory.
func (o *Opener) Stolen(epoch uint64) *Opener {
	stolen := &Opener{id: o.id, chain: o.chain, next: epoch << epochBits}
	stolen.chain.next = epoch
	for i, known := range o.epochs {
		if known.aead != nil && known.number == epoch {
			stolen.epochs[i].epoch = known.epoch
		}
	}
	return stolen
}
