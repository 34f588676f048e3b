package backoff_test

import (
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

func TestBackoff_GrowsWithFullJitterAndResets(t *testing.T) {
	b := backoff.Exponential{Min: time.Second, Max: 5 * time.Second, Rand: func() float64 { return 0.5 }}
	for i, want := range []time.Duration{500, 1000, 2000, 2500, 2500} {
		if got := b.Next(); got != want*time.Millisecond {
			t.Fatalf("wait %d is %v, want %v", i, got, want*time.Millisecond)
		}
	}
	b.Reset()
	if got := b.Next(); got != 500*time.Millisecond {
		t.Fatalf("after a reset %v", got)
	}
	for range 100 { // Must not overflow.
		if got := b.Next(); got < 0 || got > 5*time.Second {
			t.Fatalf("wait %v", got)
		}
	}
}

func TestBackoff_ZeroValueWaitsForTwoSecondsAtMost(t *testing.T) {
	b := backoff.Exponential{Rand: func() float64 { return 1 }}
	for i, want := range []time.Duration{250, 500, 1000, 2000, 2000} {
		if got := b.Next(); got != want*time.Millisecond {
			t.Errorf("wait %d is up to %v, want %v", i, got, want*time.Millisecond)
		}
	}
}
