import marketfeed

for message in marketfeed.stream("http://127.0.0.1:8765", quotes=["SY00*"]):
    print(message)
