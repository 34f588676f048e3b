package tcpstream_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
)

// pipesOpen counts the ends of pipes that this process has open.
func pipesOpen(t *testing.T) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, link := range links {
		if to, _ := os.Readlink(link); strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

func TestPlain_IdlePlayersHoldNoPipeAndStalledOnesLeaveTheOthersTheirs(t *testing.T) {
	const (
		players = 40
		kept    = 2 * 4  // Ends of pipes that are always kept.
		most    = 2 * 32 // However many players stall.
	)
	before := pipesOpen(t)
	var ends [players][2]*net.TCPConn
	for i := range ends {
		player, game, _ := newPlainPair(t).join(t)
		pass(t, game, player)
		ends[i] = [...]*net.TCPConn{player, game}
	}
	if n := pipesOpen(t) - before; n > kept {
		t.Errorf("%d idle players hold %d ends of pipes", players, n)
	}
	stalled := make(chan struct{})
	for _, end := range ends {
		go func() {
			defer func() { stalled <- struct{}{} }()
			_ = end[1].SetWriteDeadline(time.Now().Add(time.Minute))
			for data := make([]byte, 1<<20); ; {
				if _, err := end[1].Write(data); err != nil {
					return
				}
			}
		}()
	}
	deadline := time.Now().Add(await.Timeout)
	for pipesOpen(t)-before < most-kept && time.Now().Before(deadline) {
		player, game, over := newPlainPair(t).join(t)
		pass(t, game, player) // Through a pipe, or copied if there is none left.
		_, _ = player.Close(), game.Close()
		if err := await.Receive(t, over, "end of the stream"); err != nil {
			t.Error(err)
		}
	}
	// Some may have been kept before.
	if n := pipesOpen(t) - before; n < most-kept || n > most {
		t.Errorf("%d players who read nothing hold %d ends of pipes, want %d", players, n, most)
	}
	player, game, over := newPlainPair(t).join(t)
	pass(t, game, player)
	pass(t, player, game)
	_, _ = player.Close(), game.Close()
	if err := await.Receive(t, over, "end of the stream"); err != nil {
		t.Error(err)
	}
	for _, end := range ends {
		_, _ = end[0].Close(), end[1].Close()
		<-stalled
	}
}
