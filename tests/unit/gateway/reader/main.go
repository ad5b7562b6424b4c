// Says what the way in which Ollama reads a request makes of each line of standard input, a text in
// hexadecimal digits: the first value of the text, into a struct whose fields have names, by encoding/json.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
)

type request struct {
	Model     string          `json:"model"`
	KeepAlive json.RawMessage `json:"keep_alive,omitempty"`
	Shift     *bool           `json:"shift,omitempty"`
	Template  string          `json:"template"`
	Options   map[string]any  `json:"options"`
	Messages  []struct {
		Role string `json:"role"`
	} `json:"messages"`
}

type seen struct {
	Model string   `json:"model"`
	Set   []string `json:"set"` // what would act on everybody
}

func read(text string) *seen {
	var asked request
	if json.NewDecoder(strings.NewReader(text)).Decode(&asked) != nil {
		return nil
	}
	found := &seen{Model: asked.Model, Set: []string{}}
	if asked.KeepAlive != nil && string(asked.KeepAlive) != "null" {
		found.Set = append(found.Set, "keep_alive")
	}
	if asked.Shift != nil {
		found.Set = append(found.Set, "shift")
	}
	if asked.Template != "" {
		found.Set = append(found.Set, "template")
	}
	for name, value := range asked.Options {
		if value != nil {
			found.Set = append(found.Set, "options."+name)
		}
	}
	return found
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		text := make([]byte, len(lines.Bytes())/2)
		for at := range text {
			text[at] = digit(lines.Bytes()[2*at])<<4 | digit(lines.Bytes()[2*at+1])
		}
		if answers.Encode(read(string(text))) != nil {
			os.Exit(1)
		}
	}
}

func digit(one byte) byte {
	if one >= 'a' {
		return one - 'a' + 10
	}
	return one - '0'
}
