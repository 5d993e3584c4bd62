# Prints what the tests of the fault matrix did, and sums it up.

BEGIN {
	names = "test,cases,faults,runs,snapshots,errors,killed,reports,losses"
	columns = split(names, name, ",")
	for (column = 1; column <= columns; column++) printf column == 1 ? "%-12s" : "%11s", name[column]
	print ""
}

/^!/ {
	lost = lost substr($0, 3) "\n"
	if (match($0, /^! seed [0-9]+/)) replay = replay "make faults SEED=" substr($0, 8, RLENGTH - 7) "\n"
	next
}

{
	for (column = 1; column <= NF; column++) {
		printf column == 1 ? "%-12s" : "%11d", $column
		total[column] += $column
	}
	print ""
}

END {
	printf "%s faults injected, %s runs, %s snapshots, %s reports checked, %s losses\n", \
		total[3], total[4], total[5], total[8], total[9]
	if (lost != "") print "\nLost:\n" lost
	if (replay != "") print "To replay a seed:\n" replay
}
