package server

import (
	"testing"
	"time"
)

func TestClockWatch_ReportsEachStepOnce(t *testing.T) {
	var watch clockWatch
	for i, c := range []struct{ wall, monotonic, want time.Duration }{
		{10 * time.Second, 10 * time.Second, 0},
		{20*time.Second + 5*time.Millisecond, 20 * time.Second, 0}, // Slewed.
		{120 * time.Second, 30 * time.Second, 90*time.Second - 5*time.Millisecond},
		{130 * time.Second, 40 * time.Second, 0}, // Said already.
		{-time.Hour, 50 * time.Second, -time.Hour - 140*time.Second},
		{-time.Hour + 10*time.Second, 60 * time.Second, 0},
		{70 * time.Second, 70 * time.Second, time.Hour + 50*time.Second},
	} {
		if got := watch.observe(c.wall, c.monotonic); got != c.want {
			t.Errorf("observation %d: %v, want %v", i, got, c.want)
		}
	}
}
