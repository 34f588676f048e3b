package lograte_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/lograte"
)

func TestLimiter_AllowsALineForEachKeyInAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lograte.New(time.Minute)
		want := func(key int64, want bool) {
			t.Helper()
			if got := l.Allow(key); got != want {
				t.Errorf("Allow(%d) = %v, want %v", key, got, want)
			}
		}
		want(1, true)
		want(1, false)
		time.Sleep(30 * time.Second)
		want(2, true)
		want(1, false)
		time.Sleep(30 * time.Second)
		want(1, true) // It removes what no longer counts, and keeps the rest.
		want(2, false)
		time.Sleep(30 * time.Second)
		want(2, true)
		want(1, false)
	})
}

func ExampleLimiter() {
	limiter := lograte.New(time.Minute)
	for _, allocation := range []int64{1, 1, 2, 1} {
		if limiter.Allow(allocation) {
			fmt.Println("players of allocation", allocation, "are refused")
		}
	}
	// Output:
	// players of allocation 1 are refused
	// players of allocation 2 are refused
}
