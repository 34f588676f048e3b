// Package game is a sample game: a server that answers the questions two real
// games' server lists ask, and the player's side that asks them.
//
// Over TCP it speaks Minecraft Java Edition's Server List Ping (handshake,
// status, ping), over UDP on the same port the unconnected ping of RakNet,
// which Minecraft Bedrock Edition sends. Both are small, public, and differ in
// what a tunnel must get right: a conversation on one, single datagrams on the
// other. Unmodified clients of both editions list this server.
//
// Sources: minecraft.wiki, "Java Edition protocol/Server List Ping" and
// "RakNet" (offline messages).
package game

import (
	"fmt"
	"time"
)

// Status is what a server says of itself when pinged.
type Status struct {
	// MOTD is the line players read in their server list. The sample server
	// writes into it how often it was asked and whom it believes to be asking.
	MOTD string
	// Version is the game version the server names, such as "1.21".
	Version string
	// Protocol is the number of the game's protocol.
	Protocol int
	// Online and Max count players.
	Online, Max int
}

const (
	javaVersion     = "1.21"
	javaProtocol    = 767
	bedrockVersion  = "1.21.0"
	bedrockProtocol = 685
	maxPlayers      = 20

	// patience is how long either end waits for the other's next message.
	patience = 10 * time.Second
)

// line writes the MOTD. From is the address the game sees, which behind a
// tunnel is the player's own only where a PROXY protocol header carried it.
func line(motd string, pings uint64, from fmt.Stringer) string {
	return fmt.Sprintf("%s: ping %d, from %s", motd, pings, from)
}
