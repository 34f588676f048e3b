package auth

import "time"

// forgetSample bounds the sources that are looked at for one to forget.
const forgetSample = 16

// attempts counts the recent attempts of sources. It is not safe for concurrent use.
type attempts struct {
	memory time.Duration // How long an attempt counts.
	max    int           // Bounds the sources, of about 150 bytes each.
	all    map[string]*source
}

// source is where attempts come from.
type source struct {
	attempts int       // Since the last success.
	last     time.Time // The last attempt.
	waiting  int       // Those that wait in a queue.
}

func newAttempts(memory time.Duration, most int) *attempts {
	return &attempts{memory: memory, max: most, all: map[string]*source{}}
}

// add counts an attempt, and forgets another source if there are too many.
func (a *attempts) add(from string) *source {
	s := a.all[from]
	if s == nil {
		if len(a.all) >= a.max {
			a.forget()
		}
		s = &source{}
		a.all[from] = s
	}
	now := time.Now()
	if now.Sub(s.last) > a.memory {
		s.attempts = 0
	}
	s.attempts++
	s.last = now
	return s
}

// forget forgets, of a few sources of which no attempt waits, the one with the fewest.
func (a *attempts) forget() {
	var fewest string
	looked := 0
	for from, s := range a.all { // In no order.
		if s.waiting > 0 {
			continue // Of these there are few: what waits is bounded.
		}
		if looked == 0 || s.attempts < a.all[fewest].attempts {
			fewest = from
		}
		if looked++; looked == forgetSample {
			break
		}
	}
	if looked > 0 {
		delete(a.all, fewest)
	}
}

// reset forgets the attempts of a source.
func (a *attempts) reset(from string) {
	if s := a.all[from]; s != nil {
		s.attempts = 0
	}
}
