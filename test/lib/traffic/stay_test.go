//go:build linux

package traffic

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// heard is a context that ends once n answers have come, and what notes them.
func heard(t *testing.T, n int) (context.Context, func(time.Time)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx, func(time.Time) {
		if n--; n == 0 {
			cancel()
		}
	}
}

func TestStay_LeavesWithEverythingAnswered(t *testing.T) {
	game, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer game.Close()
	var mu sync.Mutex
	var carried Carried
	player := Player{Carried: func(more Carried) {
		mu.Lock()
		defer mu.Unlock()
		carried = carried.Add(more)
	}}
	ctx, answered := heard(t, 20)
	if err := player.Stay(ctx, game.Addr(), time.Millisecond, answered); err != nil {
		t.Error(err)
	}
	ctx, answered = heard(t, 20)
	if err := player.StayDatagrams(ctx, game.Addr(), time.Millisecond, answered, func(time.Time) {}); err != nil {
		t.Error(err)
	}
	if err := player.Visit(t.Context(), game.Addr(), 3); err != nil {
		t.Error(err)
	}
	if err := player.VisitDatagrams(t.Context(), game.Addr(), time.Second); err != nil {
		t.Error(err)
	}
	// Of the flow that stayed, the last datagrams may have been on their way.
	if carried.DownloadLeast < 40*staySize || carried.DownloadMost-carried.DownloadLeast > 5*staySize {
		t.Errorf("%+v", carried)
	}
	if carried.UploadMost-carried.DownloadMost != 2*(requestSize-1) || carried.UploadLeast-carried.DownloadLeast != 2*(requestSize-1) {
		t.Errorf("%+v: upload is what came back, the requests in place of the greetings", carried)
	}
}

// spoil is a game that sends back what spoilt makes of each of its players' bytes.
func spoil(t *testing.T, spoilt func([]byte) []byte) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var playing sync.WaitGroup
	playing.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		request := make([]byte, requestSize)
		if _, err := conn.Write([]byte{greeting}); err != nil {
			return
		}
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		all, buf := 0, make([]byte, 4<<10)
		for {
			n, err := conn.Read(buf)
			if all += n; n > 0 && all > 4<<10 {
				_, _ = conn.Write(spoilt(buf[:n])) // The player may have found out.
			} else if n > 0 {
				_, _ = conn.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(playing.Wait)
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}

func TestStay_FindsWhatIsWrong(t *testing.T) {
	for name, spoilt := range map[string]func([]byte) []byte{
		"a lost byte":      func(b []byte) []byte { return b[1:] },
		"a repeated byte":  func(b []byte) []byte { return append(b[:1:1], b...) },
		"a changed byte":   func(b []byte) []byte { b[0]++; return b },
		"a lost remainder": func([]byte) []byte { return nil },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		wrong := func(b []byte) []byte {
			cancel() // The player leaves once something is wrong.
			return spoilt(b)
		}
		err := new(Player).Stay(ctx, spoil(t, wrong), time.Millisecond, func(time.Time) {})
		cancel()
		if !errors.Is(err, ErrWrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
