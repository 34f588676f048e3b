package shaping

import (
	"sync/atomic"
	"time"
)

// Share is one player's part of a bandwidth. Any goroutine may call its methods, but
// only one at a time may be in Wait.
type Share struct {
	shaper *Shaper
	closed atomic.Bool

	// Guarded by the lock of the shaper.
	own     bucket      // What the player has passed ahead of their own rate.
	finish  float64     // The virtual time at which the share is over with what it has passed.
	entered bool        // finish is set.
	places  [orders]int // Its index in each queue, plus one; 0: it is not in that.

	// Of the stream that waits.
	want    float64       // The bytes that it asks for.
	granted bool          // They may pass.
	rest    time.Duration // Until when the player's own rate keeps it.
	blocked bool          // Its goroutine receives from woken.
	woken   chan struct{} // nil until it has waited.
}

// Close ends the waits of the share's stream, those to come too. It may be called
// again.
func (p *Share) Close() {
	s := p.shaper
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.closed.Swap(true) {
		return
	}
	s.waiting.remove(p)
	s.resting.remove(p)
	s.backlogged.remove(p)
	p.wake()
	if s.armed {
		s.run(s.now())
	}
}

// Chunk returns how many bytes of a stream should pass at once, for it to be steady and
// not to hold others up; 0: any number.
func (p *Share) Chunk() int {
	s := p.shaper
	if !s.active.Load() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chunk()
}

// Wait waits until n bytes of a stream may pass, and reports that they may: not if the
// share is closed. If they may not at once, it calls blocks, and then what that returned;
// nil: neither. Blocks is called with the shaper locked: it must call no method of it or
// of its shares.
func (p *Share) Wait(n int, blocks func() (over func())) bool {
	if p.shaper.active.Load() {
		if over := p.wait(n, blocks); over != nil {
			over()
		}
	}
	return !p.closed.Load()
}

// wait returns what is to be called after it, or nil.
func (p *Share) wait(n int, blocks func() (over func())) (over func()) {
	s := p.shaper
	s.mu.Lock()
	defer s.mu.Unlock()
	for n > 0 && !p.closed.Load() && s.active.Load() {
		piece := min(n, s.chunk())
		s.request(p, piece, s.now())
		if !p.granted {
			if over == nil && blocks != nil {
				over = blocks()
			}
			p.block()
		}
		if p.granted { // Otherwise the rates have changed, or the share is closed.
			n -= piece
		}
	}
	return over
}

// block waits for wake. It is called with the lock of the shaper held, which it
// releases meanwhile.
func (p *Share) block() {
	if p.woken == nil {
		p.woken = make(chan struct{}, 1)
	}
	p.blocked = true
	p.shaper.mu.Unlock()
	<-p.woken
	p.shaper.mu.Lock()
}

func (p *Share) wake() {
	if p.blocked {
		p.blocked = false
		p.woken <- struct{}{}
	}
}

// enter gives a share its first finish: a newcomer has left nothing of a fair share yet.
func (p *Share) enter() {
	if !p.entered {
		p.entered, p.finish = true, p.shaper.virtual
	}
}

// Admit reports whether a datagram of n bytes may pass now. Otherwise the caller drops
// it. A datagram of any length may pass if nothing is ahead of the rates.
func (p *Share) Admit(n int) bool {
	s := p.shaper
	if !s.active.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, bytes := s.now(), float64(n)
	p.own.setRate(s.rates.Player)
	p.own.advance(now)
	if p.own.delay(bytes) > 0 {
		p.own.press(now)
		return false
	}
	if s.all.rate > 0 {
		s.advance(now)
		p.enter()
		finish := s.finish(p, bytes)
		if !s.fits(bytes, finish, s.datagramReserve()) {
			s.all.press(now)
			return false
		}
		s.charge(p, bytes, finish)
		s.all.level += bytes
	}
	p.own.level += bytes
	return true
}
