// Package files reads the files that people write and those that hold secrets, and
// writes the program's own, by one set of rules for all programs and systems.
//
// Text is in UTF-8, with line breaks of any system. A byte-order mark is skipped, and
// another encoding is named in the error ([Text], [Line]).
//
// A secret that others on the machine can read is refused where a command would keep
// them out, and the error names it; elsewhere it is read, and there is a warning to print
// ([ReadSecret], [Exposure]).
//
// A file is replaced whole, and a symbolic link to it stays ([Write]); whether that
// will work can be established before something is done that cannot be undone
// ([Prove]).
package files
