package auth_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
)

func TestLogin_IsQuickDuringAFloodOfWrongPasswords(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	// A busy machine and the race detector have one check take up to seconds, and the
	// flood 100 times as long.
	quiet := time.Now()
	p.login(t)
	limit := 2*time.Second + 10*time.Since(quiet)
	ctx, cancel := context.WithCancel(t.Context())
	var attempts atomic.Int64
	var flood sync.WaitGroup
	for i := range 200 {
		address := fmt.Sprintf("198.51.100.%d:1000", i)
		flood.Go(func() {
			for ctx.Err() == nil {
				here := from(t, p.auth, address)
				here, leave := context.WithCancel(here)
				stop := context.AfterFunc(ctx, leave)
				_, err := p.auth.Login(here, fmt.Sprintf("user%d@example.com", i), "wrong")
				if s := status(err); ctx.Err() == nil && s != 401 && s != 429 && s != 503 {
					t.Errorf("a wrong password: %v", err)
				}
				attempts.Add(1)
				stop()
				leave()
			}
		})
	}
	defer flood.Wait()
	defer cancel()
	for i := range 3 {
		// Most have tried before: attempts go on.
		await.Within(t, time.Minute, "attempts", func(context.Context) (bool, error) {
			return attempts.Load() > int64(400+20*i), nil
		})
		started := time.Now()
		_, err := p.auth.Login(from(t, p.auth, fmt.Sprintf("192.0.2.%d:1000", i)), email, password)
		if took := time.Since(started); err != nil || took > limit {
			t.Errorf("the right password: %v after %v, more than %v", err, took, limit)
		} else {
			t.Logf("a right login took %v beside %d wrong ones", took, attempts.Load())
		}
	}
}
