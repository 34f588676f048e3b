package shaping_test

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/relay/shaping"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mbit  = 1_000_000
	speed = 40 * mbit
	burst = speed / 8 / 50 // 20 ms of it.
)

// stream is a player whose stream always has something to pass.
type stream struct {
	*shaping.Share
	chunk  int           // Bytes at once; 0: as the share says.
	every  time.Duration // The pause after each.
	passed atomic.Int64
}

// pass makes streams pass what they may until they are closed.
func pass(t *testing.T, streams ...*stream) {
	t.Helper()
	var ends sync.WaitGroup
	for _, p := range streams {
		ends.Go(func() {
			for {
				n := p.chunk
				if n == 0 {
					n = p.Chunk()
				}
				if !p.Wait(n, nil) {
					return
				}
				p.passed.Add(int64(n))
				time.Sleep(p.every)
			}
		})
	}
	t.Cleanup(func() {
		for _, p := range streams {
			p.Close()
		}
		ends.Wait()
	})
}

// total is what streams have passed since they were last asked, once all of them wait.
func total(streams ...*stream) (bytes int) {
	synctest.Wait()
	for _, p := range streams {
		bytes += int(p.passed.Swap(0))
	}
	return bytes
}

func bulk(s *shaping.Shaper, n int) []*stream {
	streams := make([]*stream, n)
	for i := range streams {
		streams[i] = &stream{Share: s.Join()}
	}
	return streams
}

// near reports whether bytes are those of a rate in bits per second, but for a part.
func near(t *testing.T, what string, bytes int, rate float64, took time.Duration, part float64) {
	t.Helper()
	want := rate / 8 * took.Seconds()
	if math.Abs(float64(bytes)-want) > part*want {
		t.Errorf("%s: %d bytes in %v, want %.0f", what, bytes, took, want)
	}
}

func TestShaper_StreamsKeepTheRateAndShareItAlike(t *testing.T) {
	for _, players := range []int{1, 3, 200} {
		for _, rate := range []int64{mbit, speed, 10_000 * mbit} {
			synctest.Test(t, func(t *testing.T) {
				s := shaping.New()
				s.SetRates(shaping.Rates{All: rate})
				streams := bulk(s, players)
				pass(t, streams...)
				if first := total(streams...); first > max(int(rate/8/25), 6000) {
					t.Errorf("%d players pass %d bytes at once", players, first)
				}
				time.Sleep(time.Second)
				total(streams...)
				const took = 10 * time.Second
				time.Sleep(took)
				sum := 0
				for _, p := range streams {
					n := total(p)
					sum += n
					// At low rates chunks are much of what each passes.
					near(t, "a player", n, float64(rate)/float64(players), took, 0.03+2*1500*float64(players)/float64(rate/8*10))
				}
				near(t, "all", sum, float64(rate), took, 0.01)
			})
		}
	}
}

func TestShaper_APlayerOfLittleUseWaitsForNobody(t *testing.T) {
	for _, players := range []int{1, 10, 200} {
		synctest.Test(t, func(t *testing.T) {
			s := shaping.New()
			s.SetRates(shaping.Rates{All: speed})
			pass(t, bulk(s, players)...)
			game := s.Join()
			var worst time.Duration
			for i := range 500 {
				time.Sleep(20 * time.Millisecond)
				before := time.Now()
				game.Wait(200, nil)
				took := time.Since(before)
				if i >= 5 { // They have come to know it.
					worst = max(worst, took)
				} else if took > 60*time.Millisecond {
					t.Errorf("beside %d players a newcomer waits for %v", players, took)
				}
			}
			if worst > 2*time.Millisecond {
				t.Errorf("beside %d players a game waits for up to %v", players, worst)
			}
		})
	}
}

func TestShaper_WhatPlayersLeaveGoesToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shaping.New()
		s.SetRates(shaping.Rates{All: speed, Player: speed / 2})
		streams := bulk(s, 2)
		slow := &stream{Share: s.Join(), chunk: 5000, every: 10 * time.Millisecond} // 4 Mbit/s.
		pass(t, slow)
		pass(t, streams...)
		time.Sleep(time.Second)
		total(append(streams, slow)...)
		time.Sleep(10 * time.Second)
		near(t, "the slow player", total(slow), 4*mbit, 10*time.Second, 0.02)
		for _, p := range streams {
			near(t, "one of the others", total(p), 18*mbit, 10*time.Second, 0.02)
		}

		streams[1].Close()
		time.Sleep(time.Second)
		total(streams...)
		time.Sleep(10 * time.Second)
		near(t, "one alone", total(streams[0]), speed/2, 10*time.Second, 0.01)
	})
}

func TestShaper_PlayersWhoComeAndGoDoNotExceedTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shaping.New()
		s.SetRates(shaping.Rates{All: speed})
		steady := bulk(s, 1)
		pass(t, steady...)
		var passed atomic.Int64
		var ends sync.WaitGroup
		for range 10_000 { // Twenty times the rate, each a player of their own.
			time.Sleep(100 * time.Microsecond)
			ends.Go(func() {
				p := s.Join()
				defer p.Close()
				if p.Wait(10_000, nil) {
					passed.Add(10_000)
				}
			})
		}
		n := total(steady...) + int(passed.Load())
		if most := speed/8 + 3*burst; n > most {
			t.Errorf("%d bytes pass in a second, want at most %d", n, most)
		}
		s.SetRates(shaping.Rates{})
		ends.Wait()
	})
}

func TestShaper_ChangesReachStreamsThatWait(t *testing.T) {
	const long = 20_000 // Bytes, which at the least rate take long.
	for name, c := range map[string]struct {
		before, after shaping.Rates
		takes         time.Duration
	}{
		"all, more":           {shaping.Rates{All: 8000}, shaping.Rates{All: speed}, 0},
		"all, none":           {shaping.Rates{All: 8000}, shaping.Rates{}, 0},
		"a player, more":      {shaping.Rates{Player: 8000}, shaping.Rates{Player: speed}, 0},
		"a player, none":      {shaping.Rates{Player: 8000}, shaping.Rates{}, 0},
		"of all to a player":  {shaping.Rates{All: 8000}, shaping.Rates{Player: speed}, 0},
		"fast to slow":        {shaping.Rates{All: speed}, shaping.Rates{All: 80_000}, 2 * time.Second},
		"a player, to slow":   {shaping.Rates{Player: speed}, shaping.Rates{Player: 80_000}, 2 * time.Second},
		"both, one is enough": {shaping.Rates{All: 8000, Player: 8000}, shaping.Rates{All: speed, Player: 80_000}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := shaping.New()
				s.SetRates(c.before)
				p := s.Join()
				p.Wait(250_000*int(max(c.before.All, c.before.Player))/speed, nil) // The burst is taken.
				passed := make(chan time.Time, 1)
				go func() {
					if p.Wait(long, nil) {
						passed <- time.Now()
					}
				}()
				if c.before.All != speed && c.before.Player != speed {
					time.Sleep(100 * time.Millisecond)
				}
				changed := time.Now()
				s.SetRates(c.after)
				if took := (<-passed).Sub(changed); took < c.takes*3/4 || took > c.takes+c.takes/10 {
					t.Errorf("it waits for another %v, want about %v", took, c.takes)
				}
			})
		})
	}
}

func TestShare_CloseEndsItsWaitAtOnce(t *testing.T) {
	for _, rates := range []shaping.Rates{{All: 8000}, {Player: 8000}, {All: 8000, Player: 8000}} {
		synctest.Test(t, func(t *testing.T) {
			s := shaping.New()
			s.SetRates(rates)
			p, other := s.Join(), s.Join()
			ended, passed := make(chan bool), make(chan bool, 1)
			go func() { ended <- p.Wait(1<<20, nil) }()
			go func() { passed <- other.Wait(1<<13, nil) }()
			time.Sleep(time.Second)
			before := time.Now()
			p.Close()
			p.Close()
			if <-ended {
				t.Error("what waited may pass")
			}
			if p.Wait(1, nil) {
				t.Error("more may pass")
			}
			if took := time.Since(before); took > 0 {
				t.Errorf("it takes %v", took)
			}
			if !<-passed {
				t.Error("the other stream may not pass")
			}
		})
	}
}

// flow sends a datagram every so often, and counts those that are dropped.
type flow struct {
	*shaping.Share
	bytes         int
	every         time.Duration
	together      int // Datagrams that come at once; 0: one.
	sent, dropped int
}

func send(t *testing.T, flows []*flow, took time.Duration) (passed int) {
	t.Helper()
	var ends sync.WaitGroup
	for i, f := range flows {
		ends.Go(func() {
			time.Sleep(time.Duration(i) * 17 * time.Microsecond)
			for start := time.Now(); time.Since(start) < took; time.Sleep(f.every) {
				for range max(1, f.together) {
					f.sent++
					if !f.Admit(f.bytes) {
						f.dropped++
					}
				}
			}
		})
	}
	ends.Wait()
	for _, f := range flows {
		passed += (f.sent - f.dropped) * f.bytes
	}
	return passed
}

func TestShaper_DropsHitDatagramsOfPlayersAboveTheirShare(t *testing.T) {
	for name, floods := range map[string]int{"one": 1, "a few": 5, "many": 200} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := shaping.New()
				s.SetRates(shaping.Rates{All: speed})
				game := &flow{Share: s.Join(), bytes: 200, every: 40 * time.Millisecond, together: 3}
				// A little less than the share that the floods leave it.
				half := &flow{Share: s.Join(), bytes: 1200}
				half.every = time.Duration(1.1 * float64(floods+1) * 1200 / (speed / 8) * float64(time.Second))
				flows := []*flow{game, half}
				for i := range floods {
					every := half.every/3 + time.Duration(i)*7*time.Microsecond // Not in step.
					flows = append(flows, &flow{Share: s.Join(), bytes: 1200, every: every})
				}
				passed := send(t, flows, 5*time.Second)
				if game.dropped > 0 {
					t.Errorf("%d of %d datagrams of a game are dropped", game.dropped, game.sent)
				}
				if half.dropped > 2 { // When it comes.
					t.Errorf("%d of %d datagrams of a player below their share are dropped", half.dropped, half.sent)
				}
				near(t, "all", passed, speed, 5*time.Second, 0.03)
				for _, f := range flows[3:] {
					if first := flows[2].sent - flows[2].dropped; math.Abs(float64(f.sent-f.dropped-first)) > 0.05*float64(first)+3 {
						t.Errorf("of two floods %d and %d pass", first, f.sent-f.dropped)
					}
				}
			})
		})
	}
}

func TestShaper_DatagramsOfAnySizePassASlowRate(t *testing.T) {
	for _, rates := range []shaping.Rates{{All: 80_000}, {Player: 80_000}, {All: 80_000, Player: 80_000}} {
		synctest.Test(t, func(t *testing.T) {
			s := shaping.New()
			s.SetRates(rates)
			f := &flow{Share: s.Join(), bytes: 50_000, every: 50 * time.Millisecond}
			near(t, "long datagrams", send(t, []*flow{f}, time.Minute), 80_000, time.Minute, 0.1)
		})
	}
}

func TestShaper_WithoutRatesEverythingPasses(t *testing.T) {
	s := shaping.New()
	p := s.Join()
	if n := testing.AllocsPerRun(100, func() {
		if !p.Wait(1<<40, nil) || !p.Admit(1<<40) || p.Chunk() != 0 {
			t.Error("there is a bound")
		}
	}); n > 0 {
		t.Errorf("it takes %v allocations", n)
	}
}

func BenchmarkShare_Wait(b *testing.B) {
	for name, rates := range map[string]shaping.Rates{"unbounded": {}, "high": {All: 100_000 * mbit, Player: 100_000 * mbit}} {
		b.Run(name, func(b *testing.B) {
			s := shaping.New()
			s.SetRates(rates)
			p := s.Join()
			b.ReportAllocs()
			for b.Loop() {
				p.Wait(p.Chunk()&1023, nil)
			}
		})
	}
}
