package shaping

import "time"

// bucket counts what has passed ahead of a rate. Times are those of its Shaper.
type bucket struct {
	rate  float64       // Bytes per second; 0: no bound.
	level float64       // Bytes that have passed ahead of the rate; below 0: what is to be made up for.
	at    time.Duration // When level was right.
	until time.Duration // The end of the pressure: see catchUp.
}

// setRate changes the rate, in bits per second.
func (b *bucket) setRate(bits int64) {
	rate := float64(bits) / 8
	if rate == b.rate {
		return
	}
	b.rate = rate
	// What was little at the old rate may be hours of the new one's.
	b.level = min(max(b.level, 0), b.depth())
}

// advance brings the level up to a time, and returns the bytes of the rate since then.
func (b *bucket) advance(now time.Duration) (bytes float64) {
	bytes = b.rate * (now - b.at).Seconds()
	b.at = now
	floor := 0.0
	if now < b.until {
		floor = -b.rate * catchUp.Seconds()
	}
	b.level = max(b.level-bytes, floor)
	return bytes
}

// press notes that something waits or is refused.
func (b *bucket) press(now time.Duration) { b.until = now + pressure }

// depth is the level that bytes may reach.
func (b *bucket) depth() float64 { return max(b.rate*burst.Seconds(), minBurst) }

// delay is how long it takes until bytes may pass. Any number may if nothing is ahead
// of the rate: a datagram can be longer than the depth.
func (b *bucket) delay(bytes float64) time.Duration {
	over := min(b.level, b.level+bytes-b.depth())
	if b.rate == 0 || over <= 0 {
		return 0
	}
	return time.Duration(over/b.rate*float64(time.Second)) + 1
}
