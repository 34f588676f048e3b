//go:build linux

package subject_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/run/bench/player"
	"github.com/eclitunnel/eclitunnel/test/run/bench/role"
	"github.com/eclitunnel/eclitunnel/test/run/bench/subject"
	"github.com/eclitunnel/eclitunnel/test/run/bench/target"
)

func TestMain(m *testing.M) {
	// Under the names of others' programs, this binary stands in for them.
	if name := filepath.Base(os.Args[0]); slices.Contains([]string{"frps", "frpc", "chisel"}, name) {
		role.ExitOn(name, standIn(os.Args[1:]))
		return
	}
	goleak.VerifyTestMain(m)
}

// What the programs are told, on their command lines and in the files named there.
var (
	serverTold = regexp.MustCompile(`bindPort = (\d+)|server --reverse --host 127.0.0.1 --port (\d+)`)
	clientTold = regexp.MustCompile(`serverAddr = "127.0.0.1"\nserverPort = (\d+)|client http://127.0.0.1:(\d+)`)
	tunnelTold = regexp.MustCompile(`type = "(?:tcp|udp)"\nlocalIP = "127.0.0.1"\nlocalPort = (?P<game>\d+)\nremotePort = (?P<public>\d+)|` +
		`R:127.0.0.1:(?P<public>\d+):127.0.0.1:(?P<game>\d+)(?:/udp)?`)
)

// standIn is a server that takes connections, or a client that reaches it and the
// game, and then is a game itself where players come.
func standIn(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	told := strings.Join(args, " ")
	if args[0] == "-c" {
		file, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		told = string(file)
	}
	if at := serverTold.FindStringSubmatch(told); at != nil {
		server, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(at[1:]...))
		if err != nil {
			return err
		}
		<-ctx.Done()
		return server.Close()
	}
	server, tunnels := clientTold.FindStringSubmatch(told), tunnelTold.FindAllStringSubmatch(told, -1)
	if server == nil || len(tunnels) != 2 {
		return fmt.Errorf("told %q", told)
	}
	public, game := cmp.Or(tunnels[0][2], tunnels[0][3]), cmp.Or(tunnels[0][1], tunnels[0][4])
	for _, port := range []string{cmp.Or(server[1:]...), game} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		conn.Close()
	}
	players, err := target.Listen(ctx, "127.0.0.1:"+public)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return players.Close()
}

// programs makes a directory of programs that are this binary.
func programs(t *testing.T, names ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func startGame(t *testing.T) string {
	t.Helper()
	game, err := target.Listen(context.WithoutCancel(t.Context()), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := game.Close(); err != nil {
			t.Error(err)
		}
	})
	return game.Addr()
}

func TestStart_OthersUntilPlayersReachTheGame(t *testing.T) {
	game := startGame(t)
	for name, start := range map[string]func() (subject.Subject, error){
		subject.FRP: func() (subject.Subject, error) {
			return subject.StartFRP(t.Context(), programs(t, "frps", "frpc"), game, machine.LoopbackCable())
		},
		subject.Chisel: func() (subject.Subject, error) {
			return subject.StartChisel(t.Context(), filepath.Join(programs(t, "chisel"), "chisel"), game, machine.LoopbackCable())
		},
	} {
		s, err := start()
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != name || len(s.PIDs) != 2 || len(s.Uplink) != 1 || s.Uplink[0].Direction != machine.To {
			t.Errorf("%+v", s)
		}
		if times, err := player.Echo(t.Context(), s.TCP, 100*time.Millisecond, 0); err != nil || len(times) == 0 {
			t.Errorf("%s: %v, %v", name, times, err)
		}
		if times, err := player.EchoDatagrams(t.Context(), s.UDP, 100*time.Millisecond, 0); err != nil || len(times) == 0 || times[0] >= player.LostAfter {
			t.Errorf("%s: %v, %v", name, times, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for _, pid := range s.PIDs {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("%s: process %d is still there: %v", name, pid, err)
			}
		}
	}
}

func TestStart_OtherThatEndsSaysWhy(t *testing.T) {
	const nobody = "127.0.0.1:1"
	_, err := subject.StartFRP(t.Context(), programs(t, "frps", "frpc"), nobody, machine.LoopbackCable())
	if err == nil || !strings.Contains(err.Error(), "frp client") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a client that does not reach the game: %v", err)
	}
	_, err = subject.StartChisel(t.Context(), filepath.Join(t.TempDir(), "chisel"), nobody, machine.LoopbackCable())
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
}
