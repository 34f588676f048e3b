// Package target connects players to the local programs that allocations name, the
// game servers, and to nothing else.
//
// The panel's allocations go in ([Dialer.SetAllocations]), and an allow-list that
// the panel cannot change ([AllowList]). Tunnel servers name an allocation and a
// player. What comes out is a connection to the allocation's local target for a TCP
// player ([Dialer.DialTCP]) or a socket for a UDP flow ([FlowSockets]), with a PROXY
// protocol header for the player where the allocation asks for one. A game on the
// loopback sees each player at an address that is derived from the player's.
// [Dialer.State] says whether the game is there, as [Dialer.Watch] finds out and players
// meet. A FlowSockets is read by its Run, whose goroutine the caller owns, or by
// goroutines that the UDP session owns.
package target
