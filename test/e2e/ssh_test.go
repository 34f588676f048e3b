package e2e

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

const sshdConfig = `
Port %[2]d
ListenAddress 127.0.0.1
HostKey %[1]s/host
AuthorizedKeysFile %[1]s/player.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
`

// An SSH server speaks first: nothing may wait for the player's first byte.
func TestSSH_ServerThatSpeaksFirst(t *testing.T) {
	w := sharedFor(t)
	keys, port := clustertest.Dir(t), freePort(t)
	for _, name := range []string{"host", "player"} {
		command(t, patience, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(keys, name))
	}
	if os.Getuid() == 0 {
		// Its package makes this at boot, and no service is started here.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(keys, "sshd_config")
	writeFile(t, config, fmt.Appendf(nil, sshdConfig, keys, port), 0o644)
	serve(t, port, "sshd", "-D", "-e", "-f", config)

	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	public := portOf(t, w.expose(t, types.CreateTCP, port, nil))
	options := []string{
		"-i", filepath.Join(keys, "player"), "-F", "none", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
	}

	out := command(t, patience, "ssh", append(options, "-p", public, me.Username+"@127.0.0.1", "echo hello from $((6*7))")...)
	if strings.TrimSpace(out) != "hello from 42" {
		t.Errorf("the command said %q", out)
	}

	content, local := noise(16<<20), t.TempDir()
	sent, kept, returned := filepath.Join(local, "sent"), filepath.Join(keys, "kept"), filepath.Join(local, "returned")
	writeFile(t, sent, content, 0o644)
	remote := me.Username + "@127.0.0.1:" + kept
	command(t, time.Minute, "scp", append(options, "-q", "-P", public, sent, remote)...)
	same(t, kept, content)
	command(t, time.Minute, "scp", append(options, "-q", "-P", public, remote, returned)...)
	same(t, returned, content)
}
