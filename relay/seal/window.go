package seal

// windowBits is how far back behind the highest sequence number one is told from
// a replay. At 100,000 packets a second that is
// 40 ms of them.
const windowBits = 4096

// window says which sequence numbers have come (RFC 4303 section 3.4.3), as a
// ring of bits of which whole words are cleared as it moves on (RFC 6479).
type window struct {
	next uint64 // One more than the highest number that has come; 0: none has.
	bits [windowBits/64 + 1]uint64
}

// highest is the highest number that has come, or 0.
func (w *window) highest() uint64 { return max(w.next, 1) - 1 }

func (w *window) word(number uint64) *uint64 {
	return &w.bits[number/64%uint64(len(w.bits))]
}

// seen reports whether a number has come, or is too far back to tell.
func (w *window) seen(number uint64) bool {
	if number >= w.next {
		return false
	}
	if w.next-number > windowBits {
		return true
	}
	return *w.word(number)>>(number%64)&1 != 0
}

// mark notes that a number has come that had not been seen, and reports whether
// it is the highest.
func (w *window) mark(number uint64) (newest bool) {
	if number >= w.next {
		// What lies between is not seen: the words that it reuses are cleared.
		from, to := number/64, number/64
		if w.next > 0 {
			from = (w.next-1)/64 + 1
		}
		if from+uint64(len(w.bits)) <= to {
			from = to - uint64(len(w.bits)) + 1
		}
		for ; from <= to; from++ {
			*w.word(from * 64) = 0
		}
		w.next = number + 1
		newest = true
	}
	*w.word(number) |= 1 << (number % 64)
	return newest
}
